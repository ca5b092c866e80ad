"""The lowered train step does not grow with depth."""

from benchmarks.lowering import lowered
from benchmarks.shapes import published


def test_the_program_of_60_layers_is_as_large_as_that_of_12() -> None:
    short, long = (lowered(published("gemma4-31b", layers), 128).count("\n") for layers in (12, 60))
    assert abs(long - short) <= 0.05 * short
