"""What training needs on TPU slices, by the real TPU compiler: minutes for each program, so run by name.

Bounds are issue 18's; figures stand in benchmarks/results/aot.md.
"""

import pytest

from benchmarks.aot import CASES, in_child
from benchmarks.shapes import weight_bytes

pytestmark = [pytest.mark.aot, pytest.mark.timeout(3600)]
PASSES = 2
"""Over the layers' weights: forward, and backward with everything computed again."""


@pytest.mark.parametrize(
    ("name", "gib", "seconds"),
    [
        ("train 31B 4 x 4096", 40, 3.2),
        ("train 31B 8 x 4096", 48, 6.4),
        ("train 31B 4 x 8192", 60, 6.8),
    ],
)
def test_a_step_fits_is_fast_and_gathers_the_weights_alone(name: str, gib: float, seconds: float) -> None:
    found = in_child(name)
    assert "error" not in found, found
    assert found["gib"] <= gib and found["step"] <= seconds
    assert found["gathered"] <= 1.2 * PASSES * weight_bytes(CASES[name].model)


def test_keeping_more_is_faster() -> None:
    full, outputs, products = (in_child(f"train 31B 4 x 4096{kept}") for kept in ("", " outputs", " products"))
    assert full["step"] > outputs["step"] > products["step"]
    assert full["gib"] < outputs["gib"] < products["gib"] <= 95 * 0.92
