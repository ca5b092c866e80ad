"""`tapeout bench serve` against a real server: figures, a table and curves; and what goes wrong is said."""

import json
import subprocess
import sys
from pathlib import Path

from tests.serve.conftest import ROOT, Server


def bench(endpoint: str, out: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tapeout", "bench", "serve", "--endpoint", endpoint, "--out", str(out), *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_a_sweep(server: Server, tmp_path: Path) -> None:
    rates = ("--qps", "50", "--qps", "100", "--qps", "inf")
    done = bench(server.url, tmp_path, "--model", "tiny", "--length", "24x8", "--requests", "6", *rates, "--price", "2")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("24x8-qps100.json", "24x8-qps50.json", "24x8-qpsinf.json", "bench.html", "bench.md")
    ]
    found = json.loads((tmp_path / "24x8-qps50.json").read_text())
    assert (found["completed"], found["failed"], found["request_rate"], found["model_id"]) == (6, 0, 50, "tiny")
    assert found["input_lens"] == [24] * 6 and found["output_lens"] == [8] * 6
    assert 0 < found["median_ttft_ms"] <= found["p99_ttft_ms"] <= found["p99_e2el_ms"]
    assert done.stdout == (tmp_path / "bench.md").read_text() and "| 24 x 8" in done.stdout and "$/M" in done.stdout
    assert (tmp_path / "bench.html").read_text().count("<svg") == 2


def test_chat_with_samples_at_a_time(server: Server, tmp_path: Path) -> None:
    flags = ("--api", "chat", "--samples", "3", "--concurrency", "2", "--requests", "4", "--temperature", "1")
    done = bench(server.url, tmp_path, "--model", "tiny", "--length", "4x5", *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "4x5-qpsinf.json").read_text())
    assert found["output_lens"] == [15] * 4 and found["max_concurrent_requests"] <= 2 and found["n"] == 3


def test_what_cannot_be_measured_is_said(server: Server, tmp_path: Path) -> None:
    unknown = bench(server.url, tmp_path, "--model", "other")
    assert unknown.returncode == 2 and "other" in unknown.stderr and "Traceback" not in unknown.stderr
    nobody = bench("http://127.0.0.1:9/v1", tmp_path, "--model", "tiny")
    assert nobody.returncode == 2 and "no answer" in nobody.stderr
    for address in ("http://[bad/v1", "localhost", "http://h:99999/v1", ""):
        none = bench(address, tmp_path, "--model", "tiny")
        assert none.returncode == 2 and "Traceback" not in none.stderr, none.stderr
    for flags, said in (
        (("--length", "5"), "--length"),
        (("--length", "0x5"), "--length"),
        (("--qps", "0"), "--qps"),
        (("--qps", "fast"), "--qps"),
        (("--price", "0"), "--price"),
        (("--samples", "0"), "samples"),
        (("--api", "other"), "api"),
    ):
        wrong = bench(server.url, tmp_path, "--model", "tiny", *flags)
        assert wrong.returncode == 2 and said in wrong.stderr and "Traceback" not in wrong.stderr, wrong.stderr
    assert list(tmp_path.iterdir()) == []
