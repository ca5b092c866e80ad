"""The decoder against `transformers`: whole sequences, packed rows, stacked and layer by layer, adapted."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import Gemma4ForCausalLM

from models.adapters.lora import add_lora
from models.config import HardwareConfig
from models.folder.load import load_decoder
from models.layer import Remat
from models.mesh import make_mesh

MakeModel = Callable[[str], tuple[Path, Gemma4ForCausalLM]]
LENGTH = 24  # three sliding windows
CLOSE = 2e-4
TARGETS = ("q", "kv", "o", "gate_up", "down")


def tokens_of(rows: int) -> np.ndarray:
    return np.random.default_rng(0).integers(3, 512, (rows, LENGTH))


def reference(model: Gemma4ForCausalLM, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.numpy()


def plain(tokens: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return jnp.asarray(tokens), positions, jnp.ones(tokens.shape, jnp.int32)


@pytest.mark.parametrize("pattern", ["two periods", "a tail", "global only"])
@pytest.mark.parametrize("stacked", [True, False])
def test_logits_equal_transformers(make_model: MakeModel, pattern: str, stacked: bool) -> None:
    folder, model = make_model(pattern)
    tokens = tokens_of(2)
    out = load_decoder(str(folder), "float32", stacked)(*plain(tokens))
    np.testing.assert_allclose(out, reference(model, tokens), atol=CLOSE)


def test_packed_segments_do_not_see_each_other(make_model: MakeModel) -> None:
    folder, model = make_model("two periods")
    tokens = tokens_of(1)
    first = 15
    positions = np.concatenate([np.arange(first), np.arange(LENGTH - first)])[None]
    segments = np.where(np.arange(LENGTH) < first, 1, 2)[None]
    out = load_decoder(str(folder), "float32", True)(jnp.asarray(tokens), jnp.asarray(positions), jnp.asarray(segments))
    parts = [reference(model, tokens[:, :first]), reference(model, tokens[:, first:])]
    np.testing.assert_allclose(out, np.concatenate(parts, 1), atol=CLOSE)


def test_remat_and_unrolling_change_no_gradient(make_model: MakeModel) -> None:
    folder, _ = make_model("a tail")
    decoder = add_lora(load_decoder(str(folder), "float32", True), make_mesh(HardwareConfig()), 2, 4.0, TARGETS, 0)
    graph, trained, frozen = nnx.split(decoder, nnx.LoRAParam, ...)
    trained = jax.tree.map(lambda a: a + 0.01, trained)
    tokens, positions, segments = plain(tokens_of(1))

    def grads(remat: Remat, scan: bool) -> nnx.State:
        def loss(trained: nnx.State, frozen: nnx.State) -> jax.Array:
            out = nnx.merge(graph, trained, frozen)(tokens, positions, segments, remat, scan)
            return jnp.mean(jax.nn.logsumexp(out, axis=-1))

        return jax.jit(jax.grad(loss))(trained, frozen)

    want = grads("none", False)
    for remat in ("none", "full", "outputs", "products"):
        got = grads(remat, True)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=5e-5), want, got)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(want)), "every adapter weight has a gradient"


def test_a_fresh_adapter_changes_nothing_and_layers_differ(make_model: MakeModel) -> None:
    folder, model = make_model("two periods")
    decoder = add_lora(load_decoder(str(folder), "float32", True), make_mesh(HardwareConfig()), 4, 8.0, TARGETS, 0)
    tokens = tokens_of(1)
    np.testing.assert_allclose(decoder(*plain(tokens)), reference(model, tokens), atol=CLOSE)
    a = decoder.stacks["sliding"].q.w_lora_a[...]
    assert a.shape == (4, 64, 4)
    assert all(float(jnp.abs(a[i] - a[j]).max()) > 0 for i in range(4) for j in range(i))
    assert {kind: sorted(n for n in TARGETS if hasattr(s, n)) for kind, s in decoder.stacks.items()} == {
        "sliding": sorted(TARGETS),
        "global": sorted(TARGETS),
    }
