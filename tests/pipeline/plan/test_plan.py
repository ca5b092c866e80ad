"""`tapeout plan`: what fits, what does not, and why; time and money from the compiler's figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.shapes import GEMMA4_31B
from common.errors import UserError
from common.machine.chips import CHIPS, slice_of
from pipeline.plan.planned import GIB, Stage
from pipeline.plan.prices import Price, price_of
from pipeline.plan.text import blocks
from tests.pipeline.conftest import Tapeout


@pytest.fixture
def large(tmp_path: Path) -> Path:
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(GEMMA4_31B))
    return folder


def test_from_a_configuration_alone(small: Path, large: Path, tapeout: Tapeout) -> None:
    model = ("--set", f"model.path={large}", "--set", "model.dtype=bfloat16", "--set", "serve.dtype=bfloat16")
    plan = tapeout("plan", small, "--on", "v5p-8", "--serve-on", "v6e-8", *model, "--set", "train.batch_size=4")
    assert plan.returncode == 0, plan.stderr
    assert (
        "train on v5p-8: 4 chips of 95 GiB, $16.80 an hour" in plan.stdout
        and "30,697,345,340 parameters" in plan.stdout
    )
    assert "mesh     fsdp 4" in plan.stdout and "14.3 GiB of weights a chip" in plan.stdout
    many = tapeout(
        "plan", small, "--on", "v5p-8", "--serve-on", "v5e-1", *model, "--set", "train.batch_size=4", "--json"
    )
    found = json.loads(many.stdout)
    assert many.returncode == 1 and found["train"]["fits"] and not found["serve"]["fits"]
    assert found["serve"]["needed"] > 57 * GIB > found["serve"]["room"]
    odd = tapeout("plan", small, "--on", "v5p-8", *model, "--set", "hardware.mesh={fsdp: 3}")
    assert odd.returncode == 1 and "mesh     none: the mesh fsdp=3 has 3 places, but there are 4 devices" in odd.stdout


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--on", "v5p-7"), "v5p-8"),
        (("--on", "h100"), "no TPU slice 'h100'"),
        (("--on", "v5p-8", "--price", "0"), "--price"),
        (("--on", "v5p-8", "--price", "inf"), "--price"),
        (("--on", "v5p-8", "--set", "model.path=owner/model"), "config.json alone"),
        (("--on", "v5p-8", "--set", "model.path=nowhere"), "config.json alone"),
    ],
)
def test_what_cannot_be_planned_is_said(small: Path, tapeout: Tapeout, flags: tuple[str, ...], said: str) -> None:
    plan = tapeout("plan", small, *flags)
    assert plan.returncode == 2 and said in plan.stderr and "Traceback" not in plan.stderr and plan.stdout == ""


def test_every_chip_has_a_price() -> None:
    for kind in CHIPS:
        price = price_of(slice_of(f"{kind}-8"), None)
        assert price.usd > 0 and price.source
    assert price_of(slice_of("v5p-8"), None).usd == pytest.approx(16.80) and price_of(slice_of("v5p-8"), 5.0).usd == 5.0
    with pytest.raises(UserError):
        price_of(slice_of("v5p-8"), 0.0)


def program(memory: float, compute: float, links: float) -> dict[str, float]:
    return {"memory": memory * GIB, "compute": compute, "links": links}


def stage(name: str, **figures: Any) -> Stage:
    sizes = {"mesh": {"fsdp": 4}, "why": "", "weights": GIB}
    return Stage(name, slice_of("v5p-8"), Price(36.0, "as given"), sizes, figures)


def test_time_and_money_are_arithmetic() -> None:
    train = stage("train", step=program(40, 1.5, 0.5), tokens=20_000)
    text = "\n".join(blocks([train], 10**9, 3600))
    assert "2.00 s of 20,000 tokens (1.50 computing + 0.50 between chips): 10,000 tokens/s" in text
    assert "3,600 steps: 2 h 0 min, $72.00" in text and "40 GiB a chip, 87.4 to use: fits, 47.4 left" in text
    assert f"MFU {4e9 * 20_000 / (2 * 4 * 459e12):.0%}" in text
    assert "every 1,000 steps: 33.3 min, $20.00" in "\n".join(blocks([train], 10**9, None))
    serve = stage(
        "serve", decode=program(20, 0.07, 0.01), prefill=program(90, 1, 0), tokens=256, steps=8, slots=32, prompt=64
    )
    text = "\n".join(blocks([serve], 10**9, None))
    assert "10.0 ms a step of 32 sequences: 3,200 tokens/s, $3.12 a million" in text
    assert not serve.fits and "does not fit, 2.6 TOO MUCH" in text


@pytest.mark.aot
def test_the_compiler_is_asked_once(small: Path, tapeout: Tapeout) -> None:
    ask = (
        "plan",
        small,
        "--on",
        "v5e-4",
        "--compile",
        "--json",
        "--set",
        "train.batch_size=4",
        "--set",
        "serve.slots=8",
    )
    first = tapeout(*ask)
    assert first.returncode == 0 and "asking the TPU compiler" in first.stderr, first.stderr
    again = tapeout(*ask)
    assert again.stdout == first.stdout and "asking" not in again.stderr
    found = json.loads(first.stdout)
    assert found["train"]["programs"]["step"]["memory"] > found["train"]["weights"]
    assert found["serve"]["programs"]["decode"]["compute"] > 0
