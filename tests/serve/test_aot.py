"""What serving needs on TPU slices, by the real TPU compiler: minutes for each program, so run by name.

Bounds are issue 17's; figures stand in benchmarks/results/aot.md.
"""

import pytest

from benchmarks.aot import CASES, in_child

pytestmark = [pytest.mark.aot, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(
    ("name", "gib", "step"),
    [
        ("decode 31B 8k", 24, 0.0147),
        ("decode 31B 16k", 24, 0.0147),
        ("decode 31B 16k int8", 20, 0.0123),
        ("decode qwen3 32B", 30, 64 / 1977),
        ("decode llama 8B", 30, 0.025),
    ],
)
def test_decoding_fits_and_is_fast_enough(name: str, gib: float, step: float) -> None:
    """GiB of a chip, and seconds for a token of every row."""
    found = in_child(name)
    assert "error" not in found, found
    assert found["gib"] <= gib and found["step"] <= step


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("prefill")])
def test_prompts_of_every_size_fit_beside_the_cache(name: str) -> None:
    found, decode = in_child(name), 10
    assert "error" not in found, found
    assert found["gib"] <= 32 - decode
