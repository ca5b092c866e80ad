"""Every family against `transformers`: whole prompts, packed rows, the cache that serves, and byte-identical copies."""

import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from common.errors import UserError
from models.adapters.lora import adapted_rows, add_lora
from models.attention.dispatch import Attention
from models.config import HardwareConfig
from models.decoder import Decoder
from models.families import carried, read_spec, rows
from models.folder.load import load_decoder
from models.leaf import from_hf, to_hf
from models.mesh import make_mesh
from models.spec import DecoderSpec
from models.weights.files import WeightFiles
from serve.engine import cache as serving
from tests.models.families import FAMILIES, SLIDING, WINDOW, build

LENGTH = 20  # more than two sliding windows
FIRST = 12
BLOCK = 4
CLOSE = 2e-4
SLOW = {"gemma3 multimodal", "gemma4 multimodal", "llama tied"}
"""Variants that decode like another one: run by name."""


def marked(names: Iterable[str], slow: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.slow] if name in slow else []) for name in names]


class Case(NamedTuple):
    folder: Path
    tokens: np.ndarray
    logits: np.ndarray
    """transformers', of the whole rows."""
    parts: np.ndarray
    """The same with every row cut in two sequences after FIRST."""

    @property
    def spec(self) -> DecoderSpec:
        return read_spec(str(self.folder))

    def decoder(self, stacked: bool) -> Decoder:
        spec, checkpoint = self.spec, WeightFiles(str(self.folder))
        arrays = {leaf.path: jnp.asarray(from_hf(leaf, checkpoint.read)) for leaf in rows(spec, stacked)}
        return Decoder(spec, arrays, stacked, mesh=None)


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    @cache
    def make(name: str) -> Case:
        model = build(name)
        folder = tmp_path_factory.mktemp("family")
        model.save_pretrained(folder)
        tokens = np.random.default_rng(0).integers(3, 90, (2, LENGTH))

        def run(part: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return model(input_ids=torch.tensor(part)).logits.numpy()

        return Case(folder, tokens, run(tokens), np.concatenate([run(tokens[:, :FIRST]), run(tokens[:, FIRST:])], 1))

    return make


def forward(decoder: Decoder, tokens: np.ndarray, first: int) -> jax.Array:
    """Logits of rows that hold one sequence up to `first` and another from there."""
    at = np.arange(LENGTH)
    positions = np.broadcast_to(np.where(at < first, at, at - first), tokens.shape)
    segments = np.broadcast_to(np.where(at < first, 1, 2), tokens.shape)
    graph, state = nnx.split(decoder)
    run = jax.jit(lambda state, *batch: nnx.merge(graph, state)(*batch))
    return run(state, tokens, positions, segments)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("stacked", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_logits_equal_transformers(case: Callable[[str], Case], name: str, stacked: bool) -> None:
    made = case(name)
    assert 0.3 < made.logits.std() < 30, "logits of order one"
    decoder = made.decoder(stacked)
    np.testing.assert_allclose(forward(decoder, made.tokens, LENGTH), made.logits, atol=CLOSE)
    np.testing.assert_allclose(forward(decoder, made.tokens, FIRST), made.parts, atol=CLOSE)


@pytest.mark.parametrize("name", marked(FAMILIES, sorted(set(FAMILIES) - {"gemma4 E2B"})))
def test_blockwise_attention_in_every_kind_of_layer(case: Callable[[str], Case], name: str) -> None:
    made = case(name)
    decoder = made.decoder(True)
    decoder.attention = Attention("blockwise")
    np.testing.assert_allclose(forward(decoder, made.tokens, FIRST), made.parts, atol=CLOSE)


@pytest.mark.parametrize("name", marked(FAMILIES, sorted(set(FAMILIES) - {"gemma3"})))
def test_bfloat16_strays_less_than_in_transformers(tmp_path: Path, name: str) -> None:
    """From float32 with the same weights: within 3e-2 of the largest logit, nearer than `transformers` in bfloat16."""
    model = build(name)
    for key, value in model.named_parameters():
        if "gemma4" in name and key.endswith("q_norm.weight"):  # it does what others do by head_dim ** -0.5
            value.data *= value.shape[0] ** -0.5
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    tokens = np.random.default_rng(0).integers(3, 90, (2, LENGTH))
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor(tokens)).logits.float().numpy()
        exact = model.float()(input_ids=torch.tensor(tokens)).logits.numpy()
    ours = np.asarray(forward(load_decoder(str(tmp_path), "bfloat16", True), tokens, LENGTH), np.float32)
    np.testing.assert_allclose(ours, exact, rtol=0, atol=3e-2 * np.abs(exact).max())
    assert np.abs(ours - exact).mean() < 0.9 * np.abs(theirs - exact).mean()


@pytest.mark.parametrize("name", marked(FAMILIES, SLOW))
def test_prefill_and_decode_equal_the_whole_sequence(case: Callable[[str], Case], name: str) -> None:
    """Through the cache that serves: prompts of different lengths, then decoding in blocks to the end."""
    made = case(name)
    decoder = made.decoder(False)
    graph, state = nnx.split(decoder)
    lengths = np.array([WINDOW + 3, 2], np.int32)
    layers = serving.empty_cache(decoder, 2, LENGTH, BLOCK)
    assert len(layers) == sum(layer.shared_kv is None for layer in made.spec.layers)
    hidden, kv = jax.jit(lambda state, tokens: nnx.merge(graph, state).prefill_hidden(tokens))(state, made.tokens)
    np.testing.assert_allclose(decoder.logits(hidden), made.logits, atol=CLOSE)
    for slot, length in enumerate(lengths):
        one = jax.tree.map(lambda a, slot=slot: a[slot : slot + 1], kv)
        layers = serving.place(decoder, layers, one, jnp.array([slot, length], jnp.int32), BLOCK)
    step = jax.jit(lambda state, *rest: serving.decode(nnx.merge(graph, state), *rest))
    for start in range(0, LENGTH - int(lengths.max()), BLOCK):
        began, block = jnp.asarray(lengths + start), serving.empty_block(decoder, 2, BLOCK)
        for i in range(BLOCK):
            at = np.minimum(lengths + start + i, LENGTH - 1)
            logits, block = step(state, made.tokens[[0, 1], at], at, layers, block, began, i)
            fits = lengths + start + i < LENGTH
            np.testing.assert_allclose(logits[fits], made.logits[[0, 1], at][fits], atol=CLOSE)
        layers = serving.flush(decoder, layers, block, began)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_tensor_is_read_or_carried_and_the_round_trip_is_byte_identical(
    case: Callable[[str], Case], name: str
) -> None:
    made = case(name)
    checkpoint = WeightFiles(str(made.folder))
    for stacked in (True, False):
        saved: dict[str, np.ndarray] = {}
        for leaf in rows(made.spec, stacked):
            saved.update(to_hf(leaf, from_hf(leaf, checkpoint.read)))
        others = set(checkpoint.names()) - set(saved)
        assert all(carried(made.spec, other) for other in others), others
        assert not any(carried(made.spec, mine) for mine in saved)
        assert all(saved[name].tobytes() == checkpoint.read(name).tobytes() for name in saved)
    assert any("vision_tower" in other for other in others) == ("multimodal" in name)


@pytest.mark.parametrize("name", marked(["qwen3", "gemma4 E2B", "gemma4 experts"], ["gemma4 E2B", "gemma4 experts"]))
def test_adapters_reach_every_layer(case: Callable[[str], Case], name: str) -> None:
    """A fresh adapter changes nothing; once B is not zero, every adapter weight has a gradient, remat or not."""
    made = case(name)
    targets = sorted({leaf.target for leaf in rows(made.spec, True) if leaf.use.product and leaf.use.adaptable})
    decoder = add_lora(made.decoder(True), make_mesh(HardwareConfig()), 2, 4.0, targets, 0)
    np.testing.assert_allclose(forward(decoder, made.tokens, LENGTH), made.logits, atol=CLOSE)
    graph, trained, frozen = nnx.split(decoder, nnx.LoRAParam, ...)
    trained = jax.tree.map(lambda a: a + 0.02, trained)
    ones = jnp.ones(made.tokens.shape, jnp.int32)

    def grads(remat: Any) -> nnx.State:
        def loss(trained: nnx.State) -> jax.Array:
            out = nnx.merge(graph, trained, frozen)(jnp.asarray(made.tokens), jnp.cumsum(ones, 1) - 1, ones, remat)
            return jnp.mean(jax.nn.logsumexp(out, axis=-1))

        return jax.jit(jax.grad(loss))(trained)

    got = grads("full")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=5e-5), grads("none"), got)
    flat = {path: np.asarray(leaf.get_value()) for path, leaf in got.flat_state()}
    assert len(flat) == 2 * len(adapted_rows(decoder, targets))
    for path, leaf in flat.items():
        assert (np.abs(leaf).reshape(leaf.shape[0], -1).max(axis=1) > 0).all(), path


def test_a_target_that_no_layer_has(case: Callable[[str], Case]) -> None:
    with pytest.raises(UserError, match="no product 'router'"):
        adapted_rows(case("qwen3").decoder(True), ["q", "router"])


REFUSED = [
    ("llama", {"attention_bias": True}, "biases", "attention_bias"),
    ("llama", {"mlp_bias": True}, "biases", "mlp_bias"),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope scaling", "yarn"),
    ("llama", {"num_attention_heads": 0, "num_key_value_heads": 1}, "positive", "num_attention_heads = 0"),
    ("llama", {"num_key_value_heads": 3}, "multiple", "num_key_value_heads = 3"),
    ("llama", {"hidden_act": "relu"}, "activation", "hidden_act = relu"),
    ("gemma3", {"sliding_window": -4}, "positive", "sliding_window = -4"),
    ("gemma3", {"use_bidirectional_attention": True}, "bidirectional", "use_bidirectional_attention"),
    ("llama", {"num_attention_heads": "four"}, "whole number", "num_attention_heads = four"),
    ("qwen3", {"hidden_size": 32.0}, "whole number", "hidden_size = 32.0"),
    ("qwen3", {"hidden_size": None}, "positive whole number", "hidden_size = None"),
    ("gemma4 experts", {"num_hidden_layers": None}, "cannot be", "config.json"),
    ("qwen3", {"num_hidden_layers": True}, "whole number", "num_hidden_layers = True"),
    ("gemma3", {"query_pre_attn_scalar": "24"}, "must be a positive number", "query_pre_attn_scalar = 24"),
    (
        "llama",
        {"rope_parameters": {"rope_theta": "1e4"}},
        "must be a positive number",
        "rope_parameters.rope_theta = 1e4",
    ),
    ("llama", {"rope_parameters": 7}, "must be an object", "rope_parameters = 7"),
    ("gemma4 experts", {"layer_types": ["full_attention"]}, "names 1 layers", "layer_types"),
    ("gemma4 experts", {"layer_types": ["half_attention"] * 3}, "list of layer types", "layer_types"),
    ("gemma4 experts", {"num_experts": None}, "lacks 'num_experts'", "config.json"),
    ("gemma4 experts", {"use_bidirectional_attention": "all"}, "bidirectional", "use_bidirectional_attention"),
]


@pytest.mark.parametrize(("name", "change", "what", "where"), REFUSED)
def test_what_is_not_supported_is_named(
    case: Callable[[str], Case], tmp_path: Path, name: str, change: dict[str, Any], what: str, where: str
) -> None:
    config = json.loads((case(name).folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError, match=what) as error:
        read_spec(str(tmp_path))
    assert where in str(error.value.where)


def test_the_short_config_of_a_published_gemma3(tmp_path: Path) -> None:
    """Multimodal Gemma 3 configs leave out what is transformers' default, in the old spelling of rope."""
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    spec = read_spec(str(tmp_path))
    sliding, last = spec.layers[0], spec.layers[5]
    assert [layer.kind for layer in spec.layers].count("global") == 5
    assert (sliding.window, sliding.rope.theta, sliding.rope.factor) == (1024, 10_000.0, 1.0)
    assert (last.window, last.rope.theta, last.rope.factor) == (None, 1_000_000.0, 8.0)
    assert (spec.vocab, last.heads, last.kv_heads, last.head_dim, last.scale) == (262_208, 8, 4, 256, 1 / 16)
    assert spec.prefix == "model.language_model."


def test_the_table_of_layers_that_borrow(case: Callable[[str], Case]) -> None:
    spec = case("gemma4 E2B").spec
    assert [layer.shared_kv for layer in spec.layers] == [None] * 5 + [2, 4, 4, 2]
    assert spec.parts == (range(0, 2), range(2, 5), range(5, 9))
    assert {leaf.path: leaf.shape for leaf in rows(spec, True) if leaf.path.startswith("sliding_shared.")} == {
        "sliding_shared.q": (2, 4, 16, 32),
        "sliding_shared.o": (2, 32, 4, 16),
        "sliding_shared.q_norm": (2, 16),
        "sliding_shared.gate_up": (2, 2, 96, 32),
        "sliding_shared.down": (2, 32, 96),
        **{
            f"sliding_shared.{n}_norm": (2, 32)
            for n in ("input", "post_attention", "pre_mlp", "post_mlp", "per_layer_input")
        },
        "sliding_shared.scalar": (2,),
        "sliding_shared.per_layer_input_gate": (2, 8, 32),
        "sliding_shared.per_layer_projection": (2, 32, 8),
    }
    assert carried(spec, "model.layers.5.self_attn.k_proj.weight")
    assert not carried(spec, "model.layers.4.self_attn.k_proj.weight")
    assert SLIDING not in spec.kinds
