"""Which attention runs: by backend and shape, or as a recipe says."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from common.errors import UserError
from models.attention.blockwise import blockwise
from models.attention.exact import attend, visible
from models.attention.kernels import KEPT, cudnn, cudnn_takes, splash, splash_block
from models.config import AttentionName
from models.spec import DecoderSpec, LayerSpec

LONG = 512
"""Tokens from which blocks of queries are faster than whole rows (on CPU; elsewhere it is memory that counts)."""


@dataclass(frozen=True)
class Attention:
    """The recipe's wish, and the mesh that kernels spread over; None: one device."""

    name: AttentionName = "auto"
    mesh: Mesh | None = None

    @property
    def platform(self) -> str:
        return jax.default_backend() if self.mesh is None else self.mesh.devices.flat[0].platform

    def choose(self, spec: LayerSpec, t: int, dtype: jnp.dtype) -> AttentionName:
        """The implementation for rows of `t` tokens. Raises UserError where the one asked for cannot do it."""
        takes = {
            "splash": self.platform == "tpu" and splash_block(spec, t) is not None,
            "cudnn": self.platform in ("gpu", "cuda") and cudnn_takes(spec, dtype),
        }
        if self.name != "auto":
            if not takes.get(self.name, True):
                raise UserError(
                    f"{self.name} attention does not take {self.platform}, {t} tokens, head dim {spec.head_dim} in "
                    f"{dtype}",
                    where="attention",
                    fix="write attention: auto",
                )
            return self.name
        if t < LONG:
            return "exact"
        return "splash" if takes["splash"] else "cudnn" if takes["cudnn"] else "blockwise"

    def describe(self, spec: DecoderSpec, t: int, dtype: str) -> str:
        """For people: the choice for every layer kind."""
        chosen = {kind: self.choose(spec.of_kind(kind), t, jnp.dtype(dtype)) for kind in spec.kinds}
        return ", ".join(f"{kind} {name}" for kind, name in chosen.items())

    def mask(
        self, positions: jax.Array, segments: jax.Array | None, spec: LayerSpec, dtype: jnp.dtype
    ) -> jax.Array | None:
        """[b t t], where the implementation wants one; made once for all layers of a kind."""
        if self.choose(spec, positions.shape[1], dtype) not in ("exact", "cudnn"):
            return None
        same = None if segments is None else segments[:, :, None] == segments[:, None, :]
        return visible(positions, positions, spec.window, same)

    def __call__(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        segments: jax.Array | None,
        mask: jax.Array | None,
        spec: LayerSpec,
    ) -> jax.Array:
        """q [b t n h]; k, v [b t k h]; segments [b t]; `mask` as `mask` made it -> [b t n h].

        The positions of a segment follow each other.
        """
        chosen = self.choose(spec, q.shape[1], q.dtype)
        if mask is not None:
            out = attend(q, k, v, mask, spec) if chosen == "exact" else cudnn(q, k, v, mask, spec)
            return checkpoint_name(out, KEPT)
        if chosen == "blockwise":
            return checkpoint_name(blockwise(q, k, v, segments, spec), KEPT)
        if segments is None:
            segments = jnp.ones(q.shape[:2], jnp.int32)
        return splash(q, k, v, segments, spec, self.mesh)
