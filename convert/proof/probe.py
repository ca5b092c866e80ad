"""Proof by running: base + adapter in float32 against the merged model, on the data stage's prompts.

The first is put together from the definition (W + scale * A B in our axes), the second read back from the files that
were written, so a mistake in the merge, the layout or the names shows as a divergence. Each target of each layer is
then merged alone, to see whether the output moves.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.errors import UserError
from common.progress import bar
from common.safetensors import Weights, read_weights
from convert.adapters.adapter import Site, site_of
from convert.prepare import Work
from convert.proof.outcome import DATASET, Outcome, prompts_of
from models.decoder import Decoder
from models.leaf import LAYER, Leaf, from_hf
from models.spec import DecoderSpec
from models.weights.files import read_tensor

Arrays = dict[str, np.ndarray]


def verify(work: Work, model: Path, probes: Path, max_kl: float | None) -> Outcome:
    """Run both models. Raises UserError where they diverge by more than `max_kl` nats on average."""
    prompts = prompts_of(probes)
    if any(max(ids) >= work.spec.vocab for ids in prompts):
        raise UserError(
            "the probe prompts hold ids that the model does not have",
            where=str(probes / DATASET),
            fix="give the data artifact that the adapter was trained on",
        )
    expected, merged = _reference(work), _read_rows(work.table, read_weights(model))
    length = max(len(ids) for ids in prompts)
    run = _program(work.spec, work.table, length)
    expected, merged = jax.device_put(expected), jax.device_put(merged)
    ones = _masks(work.table, 1.0)
    divergences = []
    for ids in prompts:
        exact, made = run(expected, merged, _masks(work.table, 0.0), ids), run(expected, merged, ones, ids)
        divergences.append(_kl(exact, made))
    every = np.concatenate(divergences)
    mean, most = float(every.mean()), float(every.max())
    if not mean <= (np.inf if max_kl is None else max_kl):
        raise UserError(
            f"the merged model diverges from base + adapter: KL {mean:.3g} nats on average, {most:.3g} at most",
            where=f"convert.max_kl = {max_kl}",
            fix="keep the base in a wider type, or raise convert.max_kl if this is small enough for you",
        )
    del expected
    return Outcome(None, mean, most, len(every), len(prompts), _effects(work, merged, run, prompts[0]))


def _read_rows(table: list[Leaf], weights: Weights) -> Arrays:
    def read(name: str) -> np.ndarray:
        shard, entry = weights.where[name]
        return read_tensor(shard.path, entry).astype(np.float32)

    return {leaf.path: from_hf(leaf, read) for leaf in table}


def _reference(work: Work) -> Arrays:
    update = work.adapter.updated
    assert update is not None, work.adapter.source
    if not work.base.shards:
        return {leaf.path: update(leaf, np.zeros(0, np.float32)) for leaf in work.table}
    base = _read_rows(work.table, work.base)
    return {leaf.path: update(leaf, base.pop(leaf.path)) for leaf in work.table}


def _masks(table: list[Leaf], value: float) -> Arrays:
    """Per row, and per layer of a stacked one: 1 takes the second model's weights."""
    return {leaf.path: np.full([leaf.size[x] for x in leaf.letters if x == LAYER], value, np.float32) for leaf in table}


def _program(spec: DecoderSpec, table: list[Leaf], length: int) -> Any:
    """run(first, second, masks, ids) -> logits [t v] of a decoder whose weights come from both; compiled once."""

    def logits(first: Any, second: Any, masks: Any, tokens: jax.Array, segments: jax.Array) -> jax.Array:
        params = {
            leaf.path: jnp.where(_wide(masks[leaf.path], leaf) > 0, second[leaf.path], first[leaf.path])
            for leaf in table
        }
        positions = jnp.arange(length, dtype=jnp.int32)[None]
        return Decoder(spec, params, stacked=True, mesh=None)(tokens, positions, segments)[0]

    compiled = jax.jit(logits)

    def run(first: Any, second: Any, masks: Arrays, ids: list[int]) -> np.ndarray:
        tokens, segments = np.zeros((1, length), np.int32), np.zeros((1, length), np.int32)
        tokens[0, : len(ids)], segments[0, : len(ids)] = ids, 1
        return np.asarray(compiled(first, second, masks, tokens, segments))[: len(ids)]

    return run


def _wide(mask: jax.Array, leaf: Leaf) -> jax.Array:
    return mask.reshape([leaf.size[x] if x == LAYER else 1 for x in leaf.letters])


def _kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p || q) at each position, in nats, from logits [t v]."""
    log_p, log_q = (x.astype(np.float64) for x in (p, q))
    log_p -= _log_sum(log_p)
    log_q -= _log_sum(log_q)
    return np.maximum(np.sum(np.exp(log_p) * (log_p - log_q), axis=-1), 0.0)


def _log_sum(x: np.ndarray) -> np.ndarray:
    most = x.max(axis=-1, keepdims=True)
    return most + np.log(np.exp(x - most).sum(axis=-1, keepdims=True))


def _effects(work: Work, merged: Any, run: Any, ids: list[int]) -> dict[Site, float]:
    if not work.base.shards:
        return {}
    base = jax.device_put(_read_rows(work.table, work.base))
    still = run(base, merged, _masks(work.table, 0.0), ids)
    touched = {each.site for each in (*work.adapter.pairs.values(), *work.adapter.values.values())}
    effects: dict[Site, float] = {}
    with bar("effect of each target", len(touched), "targets") as progress:
        for leaf in work.table:
            for number in range(leaf.size.get(LAYER, 1)):
                site = site_of(work.spec, leaf, tuple(number if x == LAYER else 0 for x in leaf.stacked))
                if site not in touched:
                    continue
                masks = _masks(work.table, 0.0)
                masks[leaf.path][(number,) if LAYER in leaf.letters else ()] = 1.0
                moved = run(base, merged, masks, ids) - still
                effects[site] = float(np.sqrt(np.mean(np.square(moved, dtype=np.float64))))
                progress.advance()
    return effects
