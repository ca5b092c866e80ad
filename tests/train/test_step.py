"""The loss: packed rows count what single rows count, and only supervised targets inside a segment count."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from pydantic import ValidationError

from benchmarks.shapes import published
from models.adapters.lora import add_lora
from models.config import HardwareConfig
from models.folder.load import load_decoder
from models.mesh import make_mesh
from models.text.packed_rows import collate
from tests.shapes import TINY
from tests.train.conftest import LENGTH, Path, conversations, packed
from train.abstract import abstract_step
from train.config import LoraConfig, TrainConfig
from train.head import LOGITS_BYTES
from train.loss import loss_of, next_tokens
from train.step import make_trainer


def test_packed_and_single_rows_have_the_same_loss(base: Path) -> None:
    config = TrainConfig(lora=LoraConfig(rank=2))
    decoder = load_decoder(str(base), "float32", True)
    decoder = add_lora(decoder, make_mesh(HardwareConfig()), 2, 4.0, config.lora.targets, 0)
    graph, trained, frozen = nnx.split(decoder, nnx.LoRAParam, ...)
    trainer = make_trainer(config, decoder.spec, graph, "float32", 10)
    parts = conversations(6)
    together = collate([packed(parts[2 * i : 2 * i + 2]) for i in range(3)], 3, LENGTH)
    apart = collate([packed([part]) for part in parts], 6, LENGTH)
    (a, a_count), (b, b_count) = (
        trainer.evaluate(trained, frozen, jax.tree.map(jnp.asarray, batch)) for batch in (together, apart)
    )
    assert float(a_count) == float(b_count) == sum(int(mask[1:].sum()) for _, mask in parts)
    assert float(a) / float(a_count) == pytest.approx(float(b) / float(b_count), abs=1e-5)


def test_micro_batches_give_the_step_of_the_whole_batch(base: Path) -> None:
    rows = collate([packed(conversations(4)[: 1 + i % 3]) for i in range(8)], 8, 2 * LENGTH)
    rows["mask"][2] = False  # a micro batch with nothing to learn
    found = []
    for accumulate in (1, 8):
        config = TrainConfig(accumulate=accumulate, learning_rate=1e-2, warmup_steps=0, remat="none")
        decoder = add_lora(load_decoder(str(base), "float32", True), None, 2, 4.0, ("q", "down"), 0)
        graph, trained, frozen = nnx.split(decoder, nnx.LoRAParam, ...)
        trainer = make_trainer(config, decoder.spec, graph, "float32", 10)
        state = trained, trainer.optimizer.init(trained)
        step, losses = jax.jit(trainer.step), []
        for _ in range(3):
            *state, metrics = step(*state, frozen, jax.tree.map(jnp.asarray, rows))
            losses += [float(metrics[name]) for name in ("loss", "grad_norm", "supervised")]
        found.append((losses, jax.tree.leaves(state[0])))
    (losses, arrays), (same_losses, same_arrays) = found
    np.testing.assert_allclose(losses, same_losses, rtol=1e-5)
    for whole, mine in zip(arrays, same_arrays, strict=True):
        np.testing.assert_allclose(mine, whole, atol=1e-5)


def test_micro_batches_are_equal() -> None:
    with pytest.raises(ValidationError, match="accumulate = 3 does not divide a batch_size of 8"):
        TrainConfig(accumulate=3)


def test_only_supervised_targets_inside_a_segment_count() -> None:
    tokens = np.array([[5, 6, 7, 8, 0]])
    batch = {
        "tokens": tokens,
        "segments": np.array([[1, 1, 2, 2, 0]]),
        "positions": np.array([[0, 1, 0, 1, 0]]),
        "mask": np.array([[False, True, True, True, False]]),
    }
    targets, weights = next_tokens(jax.tree.map(jnp.asarray, batch))
    assert np.flatnonzero(weights[0]).tolist() == [0, 2], "the first token of a segment has nothing that predicts it"
    assert targets[0, jnp.array([0, 2])].tolist() == [6, 8]


@pytest.mark.parametrize("limit", [1, 20 * 4 * TINY["vocab_size"]])
def test_chunks_of_logits_give_the_loss_and_gradients_of_whole_ones(base: Path, limit: int) -> None:
    decoder = load_decoder(str(base), "float32", True)
    batch = jax.tree.map(jnp.asarray, collate([packed(conversations(2))], 2, LENGTH))
    hidden = jax.random.normal(jax.random.key(0), (2, LENGTH, decoder.spec.width))
    targets, supervised = next_tokens(batch)

    def whole(x: jax.Array) -> jax.Array:
        each = optax.softmax_cross_entropy_with_integer_labels(decoder.logits(x), targets)
        return jnp.sum(jnp.where(supervised, each, 0.0))

    loss, grad = jax.jit(jax.value_and_grad(lambda x: loss_of(decoder, x, batch, limit)[0]))(hidden)
    same_loss, same_grad = jax.jit(jax.value_and_grad(whole))(hidden)
    assert float(loss) == pytest.approx(float(same_loss), rel=1e-6)
    np.testing.assert_allclose(grad, same_grad, atol=1e-6)


def test_no_program_holds_more_logits_than_the_limit() -> None:
    spec = published("gemma4-31b", 6)
    program = abstract_step(spec, TrainConfig(), make_mesh(HardwareConfig()), (1, 2048)).lower().as_text()
    assert 4 * 2048 * spec.vocab > LOGITS_BYTES
    shapes = re.findall(rf"tensor<([0-9x]*{spec.vocab})xf32>", program)
    sizes = {4 * math.prod(map(int, shape.split("x"))) for shape in shapes}
    assert max(sizes) == LOGITS_BYTES // 2, "a CPU takes fewer rows at once"
