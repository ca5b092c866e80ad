"""Time to trace and lower the LoRA train step of Gemma 4 31B with abstract weights, and the program's size by depth.

Nothing is allocated or compiled: `python benchmarks/lowering.py [--layers 12 60] [--length 1024]`.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.adapters.lora import add_lora
from models.attention.dispatch import Attention
from models.config import HardwareConfig
from models.decoder import Decoder, Remat
from models.families import gemma4, rows
from models.mesh import make_mesh
from models.spec import DecoderSpec
from train.config import TrainConfig
from train.step import make_trainer

SLIDING, GLOBAL = "sliding_attention", "full_attention"
GEMMA4_31B: dict[str, Any] = {
    "vocab_size": 262_144,
    "hidden_size": 5376,
    "intermediate_size": 21_504,
    "num_hidden_layers": 60,
    "layer_types": [*[SLIDING] * 5, GLOBAL] * 10,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "num_global_key_value_heads": 4,
    "head_dim": 256,
    "global_head_dim": 512,
    "attention_k_eq_v": True,
    "sliding_window": 1024,
    "rms_norm_eps": 1e-6,
    "final_logit_softcapping": 30.0,
    "rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 1e4},
        GLOBAL: {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
    },
}


def gemma4_31b(layers: int) -> DecoderSpec:
    spec = gemma4.spec(GEMMA4_31B, "model.")
    return dataclasses.replace(spec, layers=spec.layers[:layers])


def abstract_step(
    spec: DecoderSpec,
    length: int,
    batch_size: int = 1,
    attention: Attention | None = None,
    remat: Remat = "full",
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The LoRA train step, and its arguments as shapes."""
    mesh = make_mesh(HardwareConfig())
    config = TrainConfig(remat=remat)
    lora = config.lora

    def make() -> Decoder:
        values = {leaf.path: jnp.zeros(leaf.shape, jnp.bfloat16) for leaf in rows(spec, stacked=True)}
        return add_lora(Decoder(spec, values, stacked=True), mesh, lora.rank, lora.alpha, lora.targets, 0)

    decoder = nnx.eval_shape(make)
    decoder.attention = attention or decoder.attention
    graph, trained, frozen = nnx.split(decoder, nnx.LoRAParam, ...)
    trainer = make_trainer(config, graph, "bfloat16", 100)
    opt_state = jax.eval_shape(trainer.optimizer.init, trained)
    ids = jax.ShapeDtypeStruct((batch_size, length), jnp.int32)
    batch = {"tokens": ids, "positions": ids, "segments": ids, "mask": jax.ShapeDtypeStruct(ids.shape, jnp.bool_)}
    return trainer.step, (trained, opt_state, frozen, batch)


def lowered(spec: DecoderSpec, length: int) -> str:
    """The program's text."""
    step, arguments = abstract_step(spec, length)
    return jax.jit(step).lower(*arguments).as_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, nargs="+", default=[12, 60])
    parser.add_argument("--length", type=int, default=1024)
    args = parser.parse_args()
    for layers in args.layers:
        start, cpu = time.monotonic(), time.process_time()
        text = lowered(gemma4_31b(layers), args.length)
        seconds, used = time.monotonic() - start, time.process_time() - cpu
        print(f"{layers} layers: {seconds:.2f} s ({used:.2f} s of CPU), {text.count(chr(10))} lines of program")


if __name__ == "__main__":
    main()
