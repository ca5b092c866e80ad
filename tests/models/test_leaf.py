"""The table's algebra over random axis groupings: round trips are exact, and LoRA means the same in both layouts."""

import math
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from models.leaf import LAYER, Leaf, from_hf, lora_axes, lora_shapes, peft_pair, to_hf

LETTERS = [x for x in string.ascii_lowercase if x not in "lrs"]


@st.composite
def leaves(draw: st.DrawFn) -> Leaf:
    """A product's weight: some letters out, some in, grouped in any order, stacked over layers and more or not."""
    letters = draw(st.permutations(LETTERS[:4]))[: draw(st.integers(2, 4))]
    cut = draw(st.integers(1, len(letters) - 1))
    groups = f"({' '.join(letters[:cut])}) ({' '.join(letters[cut:])})"
    stacked = draw(st.sampled_from([(), ("l",), ("s",), ("l", "s")]))
    ours = [*stacked, *draw(st.permutations(letters))]
    shape = tuple(draw(st.integers(1, 3)) for _ in ours)
    count = math.prod(size for letter, size in zip(ours, shape, strict=True) if letter in stacked)
    return Leaf("x.y", tuple(f"t{i}" for i in range(count)), " ".join(ours), groups, shape)


@given(leaves(), st.integers(0, 2**32 - 1))
def test_load_is_the_inverse_of_save(leaf: Leaf, seed: int) -> None:
    array = np.random.default_rng(seed).standard_normal(leaf.shape)
    tensors = to_hf(leaf, array)
    assert {t.shape for t in tensors.values()} == {leaf.hf_shape}
    np.testing.assert_array_equal(from_hf(leaf, tensors.__getitem__), array)


@given(leaves(), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_delta_is_the_same_in_both_layouts(leaf: Leaf, rank: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = (random.standard_normal(shape) for shape in lora_shapes(leaf, rank))
    a_axes, b_axes = ("".join(axes) for axes in lora_axes(leaf))
    ours = np.einsum(f"{a_axes},{b_axes}->{''.join(leaf.letters)}", a, b)
    saved = to_hf(leaf, ours)
    for name, index in leaf.index():
        peft_a, peft_b = peft_pair(leaf, index, a, b)
        np.testing.assert_allclose(peft_b @ peft_a, saved[name], atol=1e-12)


def test_axes_of_the_fused_keys_and_values() -> None:
    leaf = Leaf("sliding.kv", tuple("abcd"), "l s d k h", "(k h) d", (2, 2, 8, 3, 4))
    assert lora_axes(leaf) == ((LAYER, "d", "r"), (LAYER, "r", "s", "k", "h"))
    assert [index for _, index in leaf.index()] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert leaf.hf_shape == (12, 8)


def test_a_tensor_of_another_shape_is_named() -> None:
    leaf = Leaf("q", ("model.q",), "d n h", "(n h) d", (4, 2, 3))
    with pytest.raises(UserError, match=r"shape \[3, 3\].*\[6, 4\]") as error:
        from_hf(leaf, lambda _: np.zeros((3, 3)))
    assert error.value.where == "model.q"
