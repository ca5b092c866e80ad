"""The decoder: periods of stacked layers under `lax.scan` for training, layer by layer for serving.

Trained parameters (LoRA's, or all) are scanned over; frozen stacks are indexed inside the rematerialised layer, which
keeps gradients from touching whole stacks and frozen weights from being copied. Layers that lend their keys and values
to later ones are walked one by one between two scans.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from models.attention.dispatch import Attention
from models.config import AttentionName
from models.families.table import rows
from models.layer import KV, POLICIES, Layer, Remat, rms_norm
from models.mesh import by_rows
from models.quant.contract import layer_of
from models.quant.weight import Quantized, plain, product
from models.spec import DecoderSpec, period

T = TypeVar("T")
Lent = dict[int, KV]
"""Keys and values that later layers borrow, by the number of their layer."""
Masks = dict[str, jax.Array | None]
"""By layer kind; None where its attention makes its own."""

LayerAttend = Callable[[int, jax.Array, KV | None], jax.Array]
"""(number of the layer, q [b t n h], its own keys and values or None) -> [b t n h]"""


def _group(by_path: Mapping[str, T], prefix: str) -> dict[str, T]:
    return {path[len(prefix) :]: value for path, value in by_path.items() if path.startswith(prefix)}


class Decoder(nnx.Module):
    """`params` maps the table's paths to arrays; `stacked` says which of its two forms they are in.

    Variables of type `trained` (nnx.LoRAParam, or nnx.Param for all) are scanned over. `mesh` (None: one device) is
    where `params` lie, from which products and attention take their form: that of another mesh is right, and slow.
    """

    unembed: nnx.Param[jax.Array]

    def __init__(
        self,
        spec: DecoderSpec,
        params: Mapping[str, jax.Array | Quantized],
        stacked: bool,
        *,
        mesh: Mesh | None,
        trained: type = nnx.LoRAParam,
        attention: AttentionName = "auto",
    ):
        self.spec = spec
        self.stacked = stacked
        self.trained = trained
        self.attention = Attention(attention, mesh)
        leaves = {leaf.path: leaf for leaf in rows(spec, stacked)}
        flat = mesh is None or (mesh.shape["tp"] == 1 and self.attention.platform != "tpu")
        outside = {path: value for path, value in params.items() if "." not in path}
        self.embed = nnx.Param(outside.pop("embed"))
        self.final_norm = nnx.Param(outside.pop("final_norm"))
        for path, value in outside.items():
            setattr(self, path, nnx.Param(value))

        def layer(path: str, number: int) -> Layer:
            own, weights = _group(leaves, f"{path}."), _group(params, f"{path}.")
            return Layer(spec.layers[number], spec.norm_eps, spec.norm_offset, own, weights, flat, mesh)

        if stacked:
            self.stacks = nnx.Dict({kind: layer(kind, spec.numbers(kind)[0]) for kind in spec.kinds})
        else:
            self.layers = nnx.List([layer(f"layers.{i}", i) for i in range(len(spec.layers))])

    @property
    def dtype(self) -> jnp.dtype:
        """What is computed in, where the weights are quantized too; known of shapes as of arrays."""
        return jnp.dtype(self.embed.get_value().dtype)

    def embedded(self, tokens: jax.Array) -> jax.Array:
        """tokens [b t] -> [b t d], where the residual stream begins: float32 whatever the weights are, since what its
        rounding loses adds up over the layers."""
        table = self.embed[...]
        scale = jnp.asarray(self.spec.embed_scale, table.dtype)
        return plain(table[tokens]).astype(jnp.float32) * scale.astype(jnp.float32)

    def per_layer_inputs(self, tokens: jax.Array, x: jax.Array) -> jax.Array | None:
        """Per-layer embeddings [y b t p] of tokens [b t] whose embeddings are x [b t d]; None where there are none."""
        if self.spec.per_layer_input is None:
            return None
        table, w, norm = (
            getattr(self, name)[...]
            for name in ("per_layer_embed", "per_layer_model_projection", "per_layer_projection_norm")
        )
        x = x.astype(w.dtype)
        context = jnp.einsum("btd,ypd->ybtp", x, w, preferred_element_type=jnp.float32).astype(x.dtype)
        context = context * jnp.asarray(self.spec.width**-0.5, x.dtype)
        context = rms_norm(context, norm, self.spec.norm_eps, self.spec.norm_offset)
        own = jnp.moveaxis(plain(table[tokens]), 2, 0) * jnp.asarray(self.spec.per_layer_input.dim**0.5, table.dtype)
        return (context + own) * jnp.asarray(2.0**-0.5, x.dtype)

    @property
    def table(self) -> jax.Array | Quantized:
        """What `normed` is multiplied with for logits [v d]."""
        return (self.embed if self.spec.tied else self.unembed)[...]

    def normed(self, x: jax.Array) -> jax.Array:
        """The last layer's output [b t d] as the table takes it."""
        x = rms_norm(x, self.final_norm[...], self.spec.norm_eps, self.spec.norm_offset)
        return x.astype(self.table.dtype)

    def logits(self, x: jax.Array) -> jax.Array:
        """x [b t d] -> [b t v] in float32, soft-capped."""
        x, table = self.normed(x), self.table
        if isinstance(table, Quantized):
            out = product(x, table)
        else:
            out = jnp.einsum("btd,vd->btv", x, table, preferred_element_type=jnp.float32)
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
        if not self.stacked:
            return self._prefilled(tokens, positions, segments)[0]
        x = self.embedded(tokens)
        masks = self._masks(positions, segments)
        per_layer_inputs = self.per_layer_inputs(tokens, x)
        by_kind = {
            k: None if per_layer_inputs is None else per_layer_inputs[jnp.array(self.spec.numbers(k))]
            for k in self.spec.kinds
        }
        return _Walk(self, positions, segments, masks, by_kind, remat, unroll=not scan).run(x)

    def prefill_hidden(self, tokens: jax.Array) -> tuple[jax.Array, tuple[KV, ...]]:
        """tokens [b t] -> last layer's output [b t d] at every position, and keys and values [b t k h] of every layer
        that has its own."""
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        x, kv = self._prefilled(tokens, positions, None)
        return x, tuple(kv.values())

    def _masks(self, positions: jax.Array, segments: jax.Array | None) -> Masks:
        return {k: self.attention.mask(positions, segments, self.spec.of_kind(k), self.dtype) for k in self.spec.kinds}

    def walk(self, tokens: jax.Array, positions: jax.Array, attend: LayerAttend) -> jax.Array:
        """The last layer's output [b t d], before the final norm, layer by layer: tokens, positions [b t].

        `attend` is given the layer's number, its queries [b t n h] and its own keys and values (None where it shares
        an earlier layer's), and answers [b t n h]; what they are kept in and looked up from is its affair.
        """
        x = self.embedded(tokens)
        per_layer_inputs = self.per_layer_inputs(tokens, x)
        for i, layer in enumerate(self.layers):
            per_layer_input = None if per_layer_inputs is None else per_layer_inputs[i]
            x = layer(x, positions, partial(attend, i), per_layer_input)
        return x

    def _prefilled(self, tokens: jax.Array, positions: jax.Array, segments: jax.Array | None) -> tuple[jax.Array, Lent]:
        """A walk over whole rows: every layer looks at the keys and values of the same tokens."""
        masks = self._masks(positions, segments)
        kept: Lent = {}

        def attend(i: int, q: jax.Array, own: KV | None) -> jax.Array:
            spec = self.spec.layers[i]
            if own is not None:
                kept[i] = own
            return self.attention(q, *kept[spec.kv_layer(i)], segments, masks[spec.kind], spec)

        return self.walk(tokens, positions, attend), kept


class _Walk:
    """One pass through the stacked layers: scans over periods, and over runs of one kind within them."""

    def __init__(
        self,
        decoder: Decoder,
        positions: jax.Array,
        segments: jax.Array,
        masks: Masks,
        per_layer_inputs: Mapping[str, jax.Array | None],
        remat: Remat,
        unroll: bool,
    ):
        self.spec, self.positions, self.remat, self.unroll = decoder.spec, positions, remat, unroll
        self.attention, self.segments, self.masks = decoder.attention, segments, masks
        self.kinds = [layer.kind for layer in decoder.spec.layers]
        self.split = {kind: nnx.split(stack, decoder.trained, ...) for kind, stack in decoder.stacks.items()}
        self.each = {kind: (self.split[kind][1], per_layer_inputs[kind]) for kind in self.split}
        """What is scanned over, by kind: trained parameters and per-layer embeddings."""
        self.lent: Lent = {}

    def run(self, x: jax.Array) -> jax.Array:
        for part in self.spec.parts:
            lends = part.start == min(self.spec.lenders, default=-1)
            x = self._lend(x, part) if lends else self._periods(x, part)
        return x

    def _step(self, kind: str) -> Any:
        """One layer: (x, (its number among its kind, what is scanned over)) -> (x, its keys and values)."""
        graph, _, frozen = self.split[kind]
        spec = self.spec.of_kind(kind)

        def step(x: jax.Array, each: tuple[Any, tuple[nnx.State, jax.Array | None]]) -> tuple[jax.Array, KV]:
            number, (trained, per_layer_input) = each
            own = jax.tree.map(lambda stack: layer_of(stack, number, self.attention.platform), frozen)
            layer = nnx.merge(graph, trained, own)
            used: list[KV] = []

            def attend(q: jax.Array, own: KV | None) -> jax.Array:
                if own is None:
                    assert spec.shared_kv is not None, "a layer without keys of its own borrows them"
                    own = self.lent[spec.shared_kv]
                used.append(own)
                return self.attention(q, *used[0], self.segments, self.masks[kind], spec)

            x = by_rows(self.attention.mesh, x)
            return by_rows(self.attention.mesh, layer(x, self.positions, attend, per_layer_input)), used[0]

        return step if self.remat == "none" else jax.checkpoint(step, policy=POLICIES[self.remat], prevent_cse=False)

    def _lend(self, x: jax.Array, part: range) -> jax.Array:
        """One layer after another; what the lenders hold is kept for the layers after this part."""
        for i in part:
            number = self.spec.numbers(self.kinds[i]).index(i)
            mine = jax.tree.map(lambda a, n=number: a[n], self.each[self.kinds[i]])
            x, kv = self._step(self.kinds[i])(x, (number, mine))
            if i in self.spec.lenders:
                self.lent[i] = kv
        return x

    def _periods(self, x: jax.Array, part: range) -> jax.Array:
        kinds = [self.kinds[i] for i in part]
        size = period(kinds)
        periods, tail = divmod(len(kinds), size)
        before = {kind: self.kinds[: part.start].count(kind) for kind in dict.fromkeys(kinds)}
        per_period = {kind: kinds[:size].count(kind) for kind in before}

        def sliced(shape: Any) -> dict[str, Any]:
            return {
                kind: jax.tree.map(lambda a, k=kind: shape(a[before[k] :], per_period[k]), self.each[kind])
                for kind in before
            }

        def period_step(x: jax.Array, each: tuple[jax.Array, Any]) -> tuple[jax.Array, None]:
            number, scanned = each
            first = {kind: before[kind] + number * n for kind, n in per_period.items()}
            return self._kinds(x, kinds[:size], first, scanned), None

        whole = sliced(lambda a, n: a[: periods * n].reshape(periods, n, *a.shape[1:]))
        x, _ = jax.lax.scan(period_step, x, (jnp.arange(periods), whole), unroll=self.unroll)
        if tail:
            first = {kind: before[kind] + periods * n for kind, n in per_period.items()}
            x = self._kinds(x, kinds[:tail], first, sliced(lambda a, n: a[periods * n :]))
        return x

    def _kinds(
        self, x: jax.Array, kinds: Sequence[str], first: Mapping[str, Any], scanned: dict[str, Any]
    ) -> jax.Array:
        """One period (or the tail): a scan for each run of layers of one kind."""
        done = dict.fromkeys(first, 0)
        for kind, group in groupby(kinds):
            count = len(list(group))
            numbers = first[kind] + done[kind] + jnp.arange(count)
            mine = jax.tree.map(lambda a, s=done[kind], n=count: a[s : s + n], scanned[kind])
            step = self._step(kind)
            x, _ = jax.lax.scan(
                lambda x, each, step=step: (step(x, each)[0], None), x, (numbers, mine), unroll=self.unroll
            )
            done[kind] += count
        return x
