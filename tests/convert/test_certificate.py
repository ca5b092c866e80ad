"""What certificate.json and the metrics say is what is on disk."""

import hashlib
import json

import numpy as np
import pytest


def test_every_target_of_every_layer_is_accounted_for(make_base, make_adapter, convert):
    base = make_base()
    out, metrics = convert(base, make_adapter(base))
    proof = json.loads((out / "certificate.json").read_text())
    rows = {(row["target"], row["layer"]): row for row in proof["targets"]}
    assert list(rows) == [(target, i) for target in ("down", "gate_up", "kv", "o", "q") for i in range(4)]
    assert rows["kv", 0]["tensors"] == [
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.self_attn.v_proj.weight",
    ]
    assert rows["kv", 3]["tensors"] == ["model.layers.3.self_attn.k_proj.weight"]
    assert all(row["trained"] > 0 and row["exported"] and not row["flags"] for row in rows.values())
    assert all(row["effective"] is None for row in rows.values())
    assert proof["verified"]["measured"] is False and "no data artifact" in proof["verified"]["why_not"]
    assert (proof["rank"], proof["alpha"], proof["step"], proof["missing"]) == (4, 8.0, 7, [])
    assert metrics["kept_min"] == pytest.approx(1, abs=1e-3)


def test_norm_and_largest_change_are_those_of_the_delta(make_base, make_adapter, arrays_of, convert):
    base = make_base()
    adapter = make_adapter(base)
    out, _ = convert(base, adapter)
    arrays = arrays_of(adapter)
    delta = 2.0 * np.einsum("fr,rd->df", arrays["global.down.lora_a"][1], arrays["global.down.lora_b"][1])
    row = next(
        row
        for row in json.loads((out / "certificate.json").read_text())["targets"]
        if (row["target"], row["layer"]) == ("down", 3)
    )
    assert row["trained"] == pytest.approx(np.linalg.norm(delta), rel=1e-5)
    assert row["merged"]["max_change"] == pytest.approx(np.abs(delta).max(), rel=1e-4)
    assert row["merged"]["error"] < 1e-3


def test_what_the_cast_loses_is_measured(make_base, make_adapter, convert):
    base = make_base(dtype="bfloat16")
    _, large = convert(base, make_adapter(base, "large", size=0.3), "large-out")
    _, small = convert(base, make_adapter(base, "small", size=0.002), "small-out")
    assert large["kept_min"] > 0.99
    assert 0 <= small["kept_min"] <= small["kept_mean"] < 0.6


def test_digests_are_those_of_the_files(make_base, make_adapter, convert):
    base = make_base(shard="12KB")
    out, metrics = convert(base, make_adapter(base))
    files = [p for folder in ("model", "adapter") for p in (out / folder).rglob("*") if p.is_file()]
    digests = {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    assert json.loads((out / "certificate.json").read_text())["files"] == digests
    assert {k.removeprefix("sha256 "): v for k, v in metrics.items() if k.startswith("sha256 ")} == digests
    assert metrics["bytes"] == sum(p.stat().st_size for p in files)
