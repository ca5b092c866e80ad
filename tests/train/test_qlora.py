"""An adapter over quantized weights: the loss and the gradients are those over the same weights, widened."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.adapters.lora import add_lora
from models.config import HardwareConfig
from models.decoder import Decoder
from models.folder.load import load_params
from models.mesh import make_mesh
from models.quant.layout import Mode
from models.quant.weight import Quantized, plain
from models.text.packed_rows import collate
from tests.train.conftest import LENGTH, conversations, packed, trained_arrays
from tests.train.test_stage import Job, Start, finish
from train.config import LoraConfig, TrainConfig
from train.step import make_trainer

Params = dict[str, jax.Array | Quantized]
SOME = [mode if mode == "int4" else pytest.param(mode, marks=pytest.mark.slow) for mode in get_args(Mode)]


@pytest.mark.parametrize("mode", SOME)
def test_gradients_are_those_over_widened_weights(base: Path, mode: Mode) -> None:
    spec, quantized = load_params(str(base), "float32", True, weights=mode)
    widened: Params = {path: plain(value) for path, value in quantized.items()}
    assert sum(isinstance(value, Quantized) for value in quantized.values()) >= 5
    config = TrainConfig(lora=LoraConfig(rank=2))
    parts = conversations(6)
    batch = jax.tree.map(jnp.asarray, collate([packed(parts[2 * i : 2 * i + 2]) for i in range(3)], 3, LENGTH))

    def gradients(params: Params) -> tuple[jax.Array, nnx.State]:
        mesh = make_mesh(HardwareConfig())
        decoder = add_lora(Decoder(spec, params, True, mesh=mesh), mesh, 2, 4.0, config.lora.targets, 0)
        graph, trained, frozen = nnx.split(decoder, nnx.LoRAParam, ...)
        trained = jax.tree.map(lambda a: a + 0.02, trained)
        trainer = make_trainer(config, decoder.spec, graph, "float32", 10)
        return jax.value_and_grad(lambda t: trainer.evaluate(t, frozen, batch)[0])(trained)

    (loss, grads), (same_loss, same_grads) = gradients(quantized), gradients(widened)
    assert float(loss) == pytest.approx(float(same_loss), rel=1e-5)
    assert all(float(jnp.abs(grad).max()) > 0 for grad in jax.tree.leaves(grads))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), grads, same_grads)


@pytest.mark.parametrize("mode", SOME)
def test_four_devices_learn_what_one_does(job: Job, start: Start, mode: Mode) -> None:
    one, one_out = job("one", weights=mode)
    four, four_out = job("four", weights=mode, hardware={"mesh": {"fsdp": 2, "tp": 2}, "replicate": "kv"})
    finish(start(one))
    finish(start(four, devices=4))
    want, got = trained_arrays(one_out), trained_arrays(four_out)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=2e-4, err_msg=name)


def test_quantized_weights_are_not_trained_themselves(job: Job, start: Callable) -> None:
    path, _ = job("wrong", weights="int4", method="full")
    err = finish(start(path), code=2)
    assert "weights held as int4 cannot be trained" in err and "Traceback" not in err
