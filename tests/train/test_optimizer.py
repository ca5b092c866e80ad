"""The optimizer as data: its schedule, and that only matrices decay, whatever the family."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from pydantic import ValidationError

from models.decoder import Decoder
from models.families import read_spec, rows
from tests.models.families import FAMILIES
from train.config import TrainConfig
from train.names import flat_names
from train.optimizer import decays, links, make_optimizer, matrices_of, schedule


@pytest.mark.parametrize("family", ["gemma3", "qwen3", "llama", "gemma4 E2B", "gemma4 experts"])
def test_matrices_are_what_has_two_axes_in_hugging_face(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family]()
    model.config.save_pretrained(tmp_path)
    axes = {name: tensor.ndim for name, tensor in model.state_dict().items()}
    spec = read_spec(str(tmp_path))
    matrices = matrices_of(spec)
    for leaf in rows(spec, stacked=True):
        assert {axes[name] >= 2 for name in leaf.hf_names} == {leaf.path in matrices}, leaf.path
    assert decays("sliding.q.lora_a", matrices) and decays("sliding.q.lora_b", matrices)


def test_norms_and_scalars_do_not_decay(base: Path) -> None:
    """A gradient of zero leaves the decay alone to move a weight."""
    spec = read_spec(str(base))
    ones = {leaf.path: jnp.ones(leaf.shape, jnp.float32) for leaf in rows(spec, stacked=True)}
    _, trained, _ = nnx.split(Decoder(spec, ones, True, mesh=None, trained=nnx.Param), nnx.Param, ...)
    config = TrainConfig(method="full", weight_decay=0.5, learning_rate=0.1, warmup_steps=0)
    optimizer = make_optimizer(config, spec, 10)
    zeros = jax.tree.map(np.zeros_like, trained)
    updates, _ = jax.jit(lambda t: optimizer.update(zeros, optimizer.init(t), t))(trained)
    before, moved = flat_names(trained), flat_names(updates)
    matrices = matrices_of(spec)
    assert {name for name, update in moved.items() if np.any(update)} == matrices < before.keys()
    for name in matrices:
        np.testing.assert_allclose(moved[name], -0.1 * 0.5 * before[name], rtol=1e-6)


def test_the_chain_is_adamw(base: Path) -> None:
    """With every weight decayed, it is optax's own, bit for bit."""
    spec = read_spec(str(base))
    config = TrainConfig(weight_decay=0.1, warmup_steps=2)
    assert list(links(config, spec, 10)) == [
        "clip_by_global_norm",
        "scale_by_adam",
        "add_decayed_weights",
        "scale_by_learning_rate",
    ]
    assert list(links(TrainConfig(clip_norm=None), spec, 10)) == ["scale_by_adam", "scale_by_learning_rate"]
    state = nnx.State({"q": {"w_lora_a": nnx.LoRAParam(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4))}})
    theirs = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule(config, 10), b2=0.99, weight_decay=0.1))
    ours, results = make_optimizer(config, spec, 10), []
    for optimizer in (ours, theirs):
        params: Any = state
        own = optimizer.init(state)
        for step in range(4):
            with jax.numpy_dtype_promotion("standard"):  # optax's own chain needs it
                updates, own = optimizer.update(jax.tree.map(lambda a, n=step: a + n, state), own, params)
            params = optax.apply_updates(params, updates)
        results.append(flat_names(params)["q.lora_a"])
    assert results[0].tobytes() == results[1].tobytes()


def test_schedule_warms_up_and_ends_low() -> None:
    rate = schedule(TrainConfig(learning_rate=1.0, warmup_steps=10, final_learning_rate=0.1), 100)
    assert [float(np.asarray(rate(step))) for step in (0, 5, 10, 100)] == pytest.approx([0.0, 0.5, 1.0, 0.1])
    short = schedule(TrainConfig(learning_rate=1.0, warmup_steps=10), 2)
    assert all(np.isfinite(float(np.asarray(short(step)))) for step in range(3))


@pytest.mark.parametrize(
    ("name", "at"),
    {
        "linear": {0: 0.0, 5: 0.5, 10: 1.0, 55: 0.55, 100: 0.1},
        "constant": {0: 0.0, 5: 0.5, 10: 1.0, 55: 1.0, 100: 1.0},
        "wsd": {0: 0.0, 10: 1.0, 55: 1.0, 80: 1.0, 90: 0.55, 100: 0.1},
    }.items(),
)
def test_schedules(name: str, at: dict[int, float]) -> None:
    config = TrainConfig.model_validate(
        {"schedule": name, "learning_rate": 1.0, "warmup_steps": 10, "final_learning_rate": 0.1}
    )
    rate = schedule(config, 100)
    assert {step: float(np.asarray(rate(step))) for step in at} == pytest.approx(at)
    for steps, warmup in ((1, 0), (1, 5), (2, 10), (3, 2)):
        short = schedule(config.model_copy(update={"warmup_steps": warmup, "wsd_decay": 1.0}), steps)
        rates = [float(np.asarray(short(step))) for step in range(steps)]
        assert np.isfinite(rates).all() and max(rates) == 1.0, "the peak is reached, however short the run"


def test_b_learns_faster_and_nothing_else_does(base: Path) -> None:
    state = nnx.State({"q": {f"w_lora_{half}": nnx.LoRAParam(jnp.ones((2, 3))) for half in "ab"}})
    grads = jax.tree.map(lambda a: a * 2, state)
    found = []
    for ratio in (1.0, 16.0):
        optimizer = make_optimizer(TrainConfig(b_rate=ratio, warmup_steps=0), read_spec(str(base)), 10)
        updates: Any = optimizer.update(grads, optimizer.init(state), state)[0]
        found.append(flat_names(updates))
    np.testing.assert_array_equal(found[1]["q.lora_a"], found[0]["q.lora_a"])
    np.testing.assert_allclose(found[1]["q.lora_b"], 16 * found[0]["q.lora_b"], rtol=1e-6)
    with pytest.raises(ValidationError, match="only an adapter has a B"):
        TrainConfig(method="full", b_rate=2.0)
