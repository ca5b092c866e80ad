"""The decoder: periods of stacked layers under `lax.scan` for training, layer by layer with a cache for serving.

Trained parameters (LoRA's, or all) are scanned over; frozen stacks are indexed inside the rematerialised layer, which
keeps gradients from touching whole stacks and frozen weights from being copied.
"""

from collections.abc import Mapping
from itertools import groupby
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from models.attention import attend, visible
from models.layer import Layer, rms_norm
from models.spec import DecoderSpec, LayerSpec

Remat = Literal["none", "full", "dots"]
Cache = tuple[tuple[jax.Array, jax.Array], ...]
"""Per layer keys and values, each [b s k h]; a sliding layer may hold a ring of `window` positions."""

POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def _group(params: Mapping[str, jax.Array], prefix: str) -> dict[str, jax.Array]:
    return {path[len(prefix) :]: value for path, value in params.items() if path.startswith(prefix)}


class Decoder(nnx.Module):
    """`params` maps the table's paths to arrays; `stacked` says which of its two forms they are in.

    Variables of type `trained` (nnx.LoRAParam, or nnx.Param for all) are scanned over.
    """

    def __init__(
        self, spec: DecoderSpec, params: Mapping[str, jax.Array], stacked: bool, trained: type = nnx.LoRAParam
    ):
        self.spec = spec
        self.stacked = stacked
        self.trained = trained
        self.embed = nnx.Param(params["embed"])
        self.final_norm = nnx.Param(params["final_norm"])
        if stacked:
            kinds = {kind: spec.of_kind(kind) for kind in spec.kinds}
            self.stacks = nnx.Dict({k: Layer(s, spec.norm_eps, _group(params, f"{k}.")) for k, s in kinds.items()})
        else:
            layers = enumerate(spec.layers)
            self.layers = nnx.List([Layer(s, spec.norm_eps, _group(params, f"layers.{i}.")) for i, s in layers])

    def embedded(self, tokens: jax.Array) -> jax.Array:
        table = self.embed[...]
        return table[tokens] * jnp.asarray(self.spec.embed_scale, table.dtype)

    def logits(self, x: jax.Array) -> jax.Array:
        """x [b t d] -> [b t v] in float32, soft-capped."""
        x = rms_norm(x, self.final_norm[...], self.spec.norm_eps)
        out = jnp.einsum("btd,vd->btv", x, self.embed[...], preferred_element_type=jnp.float32)
        cap = self.spec.logit_cap
        return out if cap is None else cap * jnp.tanh(out / cap)

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segments: jax.Array,
        remat: Remat = "none",
        scan: bool = True,
    ) -> jax.Array:
        """Next-token logits [b t v] of packed rows: tokens, positions, segments [b t] (segment 0 is padding)."""
        return self.logits(self.hidden(tokens, positions, segments, remat, scan))

    def hidden(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segments: jax.Array,
        remat: Remat = "none",
        scan: bool = True,
    ) -> jax.Array:
        """The last layer's output [b t d], before the final norm. `scan` False unrolls the loops over layers."""
        same = segments[:, :, None] == segments[:, None, :]
        masks = {k: visible(positions, positions, self.spec.of_kind(k).window, same) for k in self.spec.kinds}
        x = self.embedded(tokens)
        if not self.stacked:
            for layer in self.layers:
                x = _run(layer, x, positions, masks[layer.spec.kind])
            return x
        return self._scan(x, positions, masks, remat, unroll=not scan)

    def _scan(
        self, x: jax.Array, positions: jax.Array, masks: dict[str, jax.Array], remat: Remat, unroll: bool
    ) -> jax.Array:

        parts = {kind: nnx.split(stack, self.trained, ...) for kind, stack in self.stacks.items()}
        kinds = [layer.kind for layer in self.spec.layers]
        period = self.spec.period
        periods, tail = divmod(len(kinds), period)
        per_period = {kind: kinds[:period].count(kind) for kind in parts}

        def layer_step(kind: str) -> Any:
            graph, _, frozen = parts[kind]

            def step(x: jax.Array, each: tuple[jax.Array, nnx.State]) -> tuple[jax.Array, None]:
                number, trained = each
                own = jax.tree.map(lambda stack: stack[number], frozen)
                return _run(nnx.merge(graph, trained, own), x, positions, masks[kind]), None

            return step if remat == "none" else jax.checkpoint(step, policy=POLICIES[remat], prevent_cse=False)

        def walk(x: jax.Array, kinds: list[str], first: dict[str, jax.Array | int], trained: Any) -> jax.Array:
            """Run one period (or the tail): a scan for each run of layers of one kind."""
            done = dict.fromkeys(per_period, 0)
            for kind, group in groupby(kinds):
                count = len(list(group))
                numbers = first[kind] + done[kind] + jnp.arange(count)
                mine = jax.tree.map(lambda a, s=done[kind], n=count: a[s : s + n], trained[kind])
                x, _ = jax.lax.scan(layer_step(kind), x, (numbers, mine), unroll=unroll)
                done[kind] += count
            return x

        def period_step(x: jax.Array, each: tuple[jax.Array, Any]) -> tuple[jax.Array, None]:
            number, trained = each
            return walk(x, kinds[:period], {k: number * n for k, n in per_period.items()}, trained), None

        def slice_trained(shape: Any) -> dict[str, nnx.State]:
            return {kind: jax.tree.map(lambda a, k=kind: shape(a, per_period[k]), parts[kind][1]) for kind in parts}

        whole = slice_trained(lambda a, n: a[: periods * n].reshape(periods, n, *a.shape[1:]))
        x, _ = jax.lax.scan(period_step, x, (jnp.arange(periods), whole), unroll=unroll)
        if tail:
            rest = slice_trained(lambda a, n: a[periods * n :])
            x = walk(x, kinds[:tail], {k: periods * n for k, n in per_period.items()}, rest)
        return x

    # Serving: one layer after another, a cache array for each.

    def empty_cache(self, batch: int, length: int) -> Cache:
        """Zeros for `batch` sequences of at most `length` positions; sliding layers hold a ring of their window."""

        def zeros(spec: LayerSpec) -> jax.Array:
            slots = min(length, spec.window or length)
            return jnp.zeros((batch, slots, spec.kv_heads, spec.head_dim), self.embed[...].dtype)

        return tuple((zeros(layer), zeros(layer)) for layer in self.spec.layers)

    def prefill(self, tokens: jax.Array, lengths: jax.Array) -> tuple[jax.Array, Cache]:
        """tokens [b t], right-padded; lengths [b] -> logits [b v] after the last one, keys and values [b t k h]."""
        x, kv = self.prefill_hidden(tokens)
        last = jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)
        return self.logits(last)[:, 0], kv

    def prefill_hidden(self, tokens: jax.Array) -> tuple[jax.Array, Cache]:
        """tokens [b t] -> last layer's output [b t d] at every position, keys and values [b t k h]."""
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        x = self.embedded(tokens)
        kv: list[tuple[jax.Array, jax.Array]] = []
        for layer in self.layers:
            mask = visible(positions, positions, layer.spec.window)

            def keep(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array = mask) -> jax.Array:
                kv.append((k, v))
                return attend(q, k, v, mask)

            x = layer(x, positions, keep)
        return x, tuple(kv)

    def decode(self, tokens: jax.Array, positions: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        """One token for each sequence: tokens, positions [b] -> logits [b v] and the cache with them written."""
        x = self.embedded(tokens[:, None])
        rows = jnp.arange(tokens.shape[0])
        out: list[tuple[jax.Array, jax.Array]] = []
        for layer, (keys, values) in zip(self.layers, cache, strict=True):
            size = keys.shape[1]
            # Slot j holds the latest position p <= now with p % size == j; p < 0 was never written.
            held = positions[:, None] - (positions[:, None] - jnp.arange(size)) % size
            mask = visible(positions[:, None], held, layer.spec.window) & (held >= 0)[:, None]

            def look(
                q: jax.Array, k: jax.Array, v: jax.Array, keys: Any = keys, values: Any = values, mask: Any = mask
            ) -> jax.Array:
                at = positions % keys.shape[1]
                keys, values = keys.at[rows, at].set(k[:, 0]), values.at[rows, at].set(v[:, 0])
                out.append((keys, values))
                return attend(q, keys, values, mask)

            x = layer(x, positions[:, None], look)
        return self.logits(x)[:, 0], tuple(out)


def _run(layer: Layer, x: jax.Array, positions: jax.Array, mask: jax.Array) -> jax.Array:
    return layer(x, positions, lambda q, k, v: attend(q, k, v, mask))
