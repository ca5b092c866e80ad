"""What the decoder reads: one `LayerSpec` per layer, never a family's name."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from models.leaf import Row

Activation = Literal["gelu", "silu"]
"""`gelu` is its tanh approximation."""


@dataclass(frozen=True)
class Stretch:
    """Llama 3.1's rope scaling: wavelengths above original / low are divided, those below original / high are not."""

    low: float
    high: float
    original: int


@dataclass(frozen=True)
class Rope:
    """Rotary embedding: angles of the first `rotary` of head_dim/2 frequencies turn, the others stand still.

    Frequency i is theta ** (-2 i / head_dim) / factor (Su et al. 2021; "proportional" partial rotary of Gemma 4's
    config); with `stretch`, short wavelengths keep their frequency.
    """

    theta: float
    rotary: int
    factor: float = 1.0
    stretch: Stretch | None = None


@dataclass(frozen=True)
class Experts:
    """A mixture of experts beside the dense MLP: each token goes to its `top_k` of `count`, each `dim` wide."""

    count: int
    top_k: int
    dim: int


@dataclass(frozen=True)
class LayerSpec:
    kind: str
    """Layers of one kind have equal shapes and are stacked."""
    heads: int
    kv_heads: int
    head_dim: int
    mlp_dim: int
    rope: Rope
    activation: Activation = "gelu"
    window: int | None = None
    scale: float = 1.0
    """Attention scores are multiplied by it, before `cap`."""
    cap: float | None = None
    """Soft cap of the attention scores: cap * tanh(scores / cap)."""
    k_is_v: bool = False
    qk_norm: bool = True
    v_norm: bool = False
    post_norms: bool = True
    """Whether the attention's and the MLP's outputs are normed too."""
    scalar: bool = False
    """Whether the layer's output is multiplied by a weight."""
    shared_kv: int | None = None
    """The earlier layer whose keys and values this one borrows; it has none of its own."""
    experts: Experts | None = None

    def kv_layer(self, number: int) -> int:
        """Whose keys and values layer `number`, of this spec, looks at."""
        return number if self.shared_kv is None else self.shared_kv


@dataclass(frozen=True)
class PerLayerInput:
    """Per-layer embeddings (Gemma 4 E2B): every layer reads `dim` numbers of its own for each token."""

    vocab: int
    dim: int


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
    norm_offset: float = 0.0
    """Norms multiply by (offset + weight)."""
    tied: bool = True
    """Whether the logits are products with the embedding, or with a table of their own."""
    per_layer_input: PerLayerInput | None = None
    own_rows: tuple[Row, ...] = ()
    """Rows that every layer of this family has beside the table's."""
    carried: tuple[str, ...] = ()
    """Starts of the names of HF tensors that this decoder does not read and every copy of the model keeps."""

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
    def lenders(self) -> frozenset[int]:
        """Layers whose keys and values others borrow."""
        return frozenset(layer.shared_kv for layer in self.layers if layer.shared_kv is not None)

    @property
    def parts(self) -> tuple[range, ...]:
        """Layers in parts that are walked one after another: before the first lender, lenders, borrowers."""
        if not self.lenders:
            return (range(len(self.layers)),)
        first = next(i for i, layer in enumerate(self.layers) if layer.shared_kv is not None)
        cuts = [0, min(self.lenders), first, len(self.layers)]
        return tuple(range(a, b) for a, b in pairwise(cuts) if a < b)


def period(kinds: Sequence[str]) -> int:
    """The smallest number of layers after which the kinds repeat (a shorter tail may follow)."""
    fits = (p for p in range(1, len(kinds) + 1) if all(k == kinds[i % p] for i, k in enumerate(kinds)))
    return next(fits)
