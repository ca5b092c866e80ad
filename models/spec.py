"""What the decoder reads: one `LayerSpec` per layer, never a family's name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rope:
    """Rotary embedding: angles of the first `rotary` of head_dim/2 frequencies turn, the others stand still.

    Frequency i is theta ** (-2 i / head_dim) (Su et al. 2021; "proportional" partial rotary of Gemma 4's config).
    """

    theta: float
    rotary: int


@dataclass(frozen=True)
class LayerSpec:
    kind: str
    """Layers of one kind have equal shapes and are stacked."""
    heads: int
    kv_heads: int
    head_dim: int
    mlp_dim: int
    rope: Rope
    window: int | None = None
    k_is_v: bool = False


@dataclass(frozen=True)
class DecoderSpec:
    family: str
    vocab: int
    width: int
    layers: tuple[LayerSpec, ...]
    norm_eps: float
    embed_scale: float
    logit_cap: float | None
    prefix: str
    """What the HF tensor names of the decoder start with."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Layer kinds in order of first appearance."""
        return tuple(dict.fromkeys(layer.kind for layer in self.layers))

    def of_kind(self, kind: str) -> LayerSpec:
        return next(layer for layer in self.layers if layer.kind == kind)

    def numbers(self, kind: str) -> tuple[int, ...]:
        """Which layers of the model are of this kind, in order."""
        return tuple(i for i, layer in enumerate(self.layers) if layer.kind == kind)

    @property
    def period(self) -> int:
        """The smallest number of layers after which the kinds repeat (a shorter tail may follow)."""
        kinds = [layer.kind for layer in self.layers]
        fits = (p for p in range(1, len(kinds) + 1) if all(k == kinds[i % p] for i, k in enumerate(kinds)))
        return next(fits)
