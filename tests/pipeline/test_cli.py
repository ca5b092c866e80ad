"""What a person does wrong is one screen that says what to do, exit code 2, no traceback, nothing half-written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = Path(__file__).resolve().parents[2] / "recipes" / "assets" / "tiny-gemma4"


def assert_user_error(done: "subprocess.CompletedProcess[str]", *said: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 32
    for words in said:
        assert words in done.stderr


def test_rank_zero(small: Path, tmp_path: Path, tapeout):
    done = tapeout("run", small, "--set", "train.lora.rank=0")
    assert_user_error(done, "--set train.lora.rank=0: train.lora.rank: must be greater than or equal to 1, not 0")
    assert not (tmp_path / "runs").exists()


def test_unknown_key(small: Path, tmp_path: Path, tapeout):
    small.write_text(small.read_text().replace("samples: 2", "sampels: 2"))
    done = tapeout("run", "small.yaml")
    assert done.stderr == (
        "error: a problem in small.yaml\n  small.yaml:20: eval.sampels: unknown key; did you mean eval.samples?\n"
    )
    assert_user_error(done)
    assert not (tmp_path / "runs").exists()


def test_a_mesh_that_does_not_multiply(small: Path, tmp_path: Path, tapeout):
    done = tapeout("run", small, "--set", "hardware.mesh={fsdp: 2, tp: 3}", "--set", "hardware.devices=4")
    assert done.stderr == (
        "error: the mesh has 6 places (fsdp 2 x tp 3) for 4 devices\n"
        "  where: hardware.mesh\n"
        "  to do: choose axes whose product is the number of devices, or mesh: auto\n"
    )
    assert_user_error(done)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["train.init=random"], "an adapter needs a trained base\n  where: train.init"),
        (
            ["eval.gate.max_drop=0", "eval.score_base=false"],
            "which this recipe does not score\n  where: eval.gate.max_drop",
        ),
    ],
)
def test_settings_that_contradict_each_other(small: Path, tmp_path: Path, tapeout, sets: list[str], said: str):
    options = [word for assignment in sets for word in ("--set", assignment)]
    assert_user_error(tapeout("run", small, *options), said)
    assert_user_error(tapeout("check", small, *options), said)
    assert not (tmp_path / "runs").exists()


def test_missing_iverilog(small: Path, tmp_path: Path, tapeout):
    done = tapeout("run", small, PATH="")
    assert_user_error(
        done, "iverilog and vvp not found: eval simulates what the model writes", "apt-get install iverilog"
    )
    assert not list((tmp_path / "runs" / "small").glob("*/*"))


def test_runs_folder_below_a_file(small: Path, tmp_path: Path, tapeout):
    done = tapeout("run", small, "--runs", small / "runs")
    assert_user_error(done, "cannot write to the runs folder: Not a directory", "--runs DIR")


def test_runs_folder_read_only(small: Path, tapeout):
    done = tapeout("run", small, "--runs", "/proc/runs")
    assert_user_error(done, "cannot write to the runs folder", "--runs DIR")


@pytest.mark.parametrize(
    ("broken", "line"),
    [('{"prompt": "a", "response"', 3), ("[1, 2]", 3)],
)
def test_malformed_row(small: Path, tmp_path: Path, tapeout, broken: str, line: int):
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    rows[line - 1] = broken
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    done = tapeout("run", small, "--to", "data")
    assert_user_error(done, f"rows.jsonl:{line}")
    assert list((tmp_path / "runs" / "small" / "data").iterdir()) == []


def test_missing_files_are_listed_together(small: Path, tmp_path: Path, tapeout):
    (tmp_path / "rows.jsonl").unlink()
    shutil.rmtree(tmp_path / "benchmark")
    done = tapeout("run", small, "--set", "model.path=nowhere")
    assert done.stderr == (
        "error: the recipe names what is not there\n"
        "  --set model.path=nowhere: model.path: nowhere does not exist\n"
        "  small.yaml:6: data.sources.0.path: rows.jsonl does not exist\n"
        "  small.yaml:19: eval.benchmark: benchmark does not exist\n"
        "  to do: paths are relative to the recipe file; fetch a model with: hf download NAME --local-dir DIR\n"
    )
    assert_user_error(done)


@pytest.mark.parametrize(("size", "last"), [("64k", "data"), ("1400k", "train")])
def test_full_disk(small: Path, tmp_path: Path, tapeout, size: str, last: str):
    """A tmpfs of a few KiB is the disk, in a mount namespace of its own; with more room the same command goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    artifacts = f'find "{disk}/small/{last}" -mindepth 1 -maxdepth 1 ! -name "*.partial"'
    more = f'mount -o remount,size=100m "{disk}" && "$@" >&2'
    inner = (
        f'mount -t tmpfs -o size={size} tmpfs "{disk}"; "$@"; code=$?; {artifacts}; {more}; echo "then $?"; exit $code'
    )
    again = [sys.executable, "-m", "tapeout", "run", str(small), "--to", last, "--runs", str(disk)]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", inner, "sh", *again],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert_user_error(done, "free space", "--runs")
    assert done.stdout == "then 0\n", "nothing half-written, and the rerun is whole"


def test_debug_shows_the_traceback(small: Path, tapeout):
    done = tapeout("run", small, "--set", "train.lora.rank=0", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("  --set train.lora.rank=0")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "small.yaml", "--from", "tarin"), "no such stage"),
        (("run", "small.yaml", "--from", "eval", "--to", "data"), "--from eval comes after --to data"),
        (("data",), "without a recipe, --model, --input, --out must be given"),
        (("data", "small.yaml", "--out", "x"), "the recipe says what data reads and writes"),
        (("data", "--model", "nowhere", "--input", "rows.jsonl", "--out", "x"), "where: --model nowhere"),
        (("convert", "--base", ".", "--adapter", "nowhere", "--out", "x"), "where: --adapter nowhere"),
        (("serve", "--model", "nowhere"), "where: --model nowhere"),
        (("serve", "--model", ".", "--port", "70000"), "port: must be less than or equal to 65535, not 70000"),
        (("eval", "--benchmark", "benchmark"), "without a recipe, --endpoint, --model, --out must be given"),
        (("gate", "nowhere"), "no score here"),
        (("gate", "nowhere", "--min", "2"), "min: must be less than or equal to 1, not 2.0"),
        (("copy", "quickstart", "small.yaml"), "this file exists"),
        (("serve", "small.yaml", "--port", "70000"), "--set serve.port=70000: serve.port: must be less than"),
        (("serve", "small.yaml", "--port", "8000"), "serve reads what data makes, and that is not there"),
        (("gate", "small.yaml", "--min", "nan"), "min: must be a finite number"),
    ],
)
def test_wrong_arguments(small: Path, tapeout, arguments: tuple[str, ...], said: str):
    assert_user_error(tapeout(*arguments), said)


def test_check_prints_what_can_be_read_back(small: Path, tmp_path: Path, tapeout):
    done = tapeout("check", small, "--set", "train.lora.rank=8")
    assert done.returncode == 0
    (tmp_path / "resolved.yaml").write_text(done.stdout)
    assert tapeout("check", "resolved.yaml").stdout == done.stdout
    assert "rank: 8" in done.stdout


def test_check_says_what_this_machine_lacks(small: Path, tapeout):
    done = tapeout("check", small, "--set", "model.path=nowhere", "--set", "train.warmup_steps=1")
    assert done.returncode == 0
    assert done.stderr == "to run it here: --set model.path=nowhere: model.path: nowhere does not exist\n"


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["train.lora.targets=[q, router]"], "train.lora.targets: this model has no router; it has down, gate_up"),
        (["train.lora.targets=[q_proj]"], "this model has no q_proj; did you mean q? it has down, gate_up"),
        (["serve.max_length=64", "eval.max_tokens=64"], "64 tokens leave no room for a prompt in 64"),
        (["hardware.mesh={fsdp: 0}"], "hardware.mesh.fsdp: must be greater than or equal to 1, not 0"),
    ],
)
def test_check_finds_what_no_run_can_do(small: Path, tmp_path: Path, tapeout, sets: list[str], said: str):
    options = [word for assignment in sets for word in ("--set", assignment)]
    for command in ("check", "run"):
        assert_user_error(tapeout(command, small, *options), said)
    assert not list(tmp_path.glob("runs/small/*/*/record.json"))


def test_check_knows_the_family(small: Path, tmp_path: Path, tapeout):
    model = Path(shutil.copytree(MODEL, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    for change, said in (
        ({"model_type": "mamba"}, "model_type 'mamba' is not known"),
        ({"hidden_size": None}, "config"),
    ):
        (model / "config.json").write_text(json.dumps(config | change))
        refused = tapeout("check", small, "--set", "model.path=model")
        assert_user_error(refused, "--set model.path=model: model.path: ", said)
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 200}))
    warned = tapeout("check", small, "--set", "model.path=model")
    assert warned.returncode == 0
    assert "warning: small.yaml:7: data.max_length: 256 tokens, and the model was made for 200" in warned.stderr


def test_check_warns_of_what_is_hardly_meant(small: Path, tapeout):
    done = tapeout("check", small, "--set", "serve.max_length=128")
    assert done.returncode == 0 and "train.warmup_steps: 10 steps of warm-up in a run of 6" in done.stderr
    assert "--set serve.max_length=128: serve.max_length: rows of up to 256 tokens" in done.stderr
    assert tapeout("check", small, "--set", "train.warmup_steps=2").stderr == ""


def test_a_benchmark_that_leads_elsewhere_stops_before_its_digest(small: Path, tmp_path: Path, tapeout):
    """A link to a file without an end: whoever digests it never returns."""
    (tmp_path / "benchmark" / "notes").symlink_to("/proc/self/mem")
    done = tapeout("run", small)
    assert_user_error(done, "small.yaml:19: eval.benchmark: a symbolic link that leaves the checkout")
    flags = ("--benchmark", "benchmark", "--completions", "rows.jsonl", "--out", "x")
    assert_user_error(tapeout("eval", *flags), "a symbolic link that leaves the checkout")


@pytest.mark.parametrize("arguments", ["recipes", f"inspect {MODEL}", "check quickstart"])
def test_a_working_folder_that_was_deleted(tmp_path: Path, command: list[str], arguments: str):
    """What needs no place still works; what does says so."""
    words = f'mkdir gone && cd gone && rmdir ../gone && "$@" {arguments}'
    env = {**os.environ, "PYTHONPATH": str(MODEL.parents[2])}
    script = ["sh", "-c", words, "sh", *command]
    done = subprocess.run(script, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr and done.returncode == (0 if "inspect" in arguments else 2), done.stderr


def test_recipes_copy_and_schema(tmp_path: Path, tapeout):
    assert "quickstart" in tapeout("recipes").stdout
    assert tapeout("copy", "quickstart", "mine.yaml").returncode == 0
    mine, shipped = (tapeout("check", name).stdout for name in ("mine.yaml", "quickstart"))
    assert mine == shipped.replace("name: quickstart", "name: mine", 1)
    assert json.loads(tapeout("schema").stdout)["title"] == "Recipe"


def test_stored_completions_are_scored_and_gated_from_flags_alone(small: Path, tmp_path: Path, tapeout):
    """The references, renamed to what the testbench calls, pass; an empty module does not."""
    good, bad = [], []
    for reference in sorted((tmp_path / "benchmark").glob("*_ref.sv")):
        task = reference.name.removesuffix("_ref.sv")
        text = reference.read_text().replace("RefModule", "TopModule")
        good.append(json.dumps({"task_id": task, "completion": f"```verilog\n{text}\n```"}))
        bad.append(json.dumps({"task_id": task, "completion": "```verilog\nmodule TopModule(); endmodule\n```"}))
    for name, rows in (("good", good), ("bad", bad)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        done = tapeout(
            "eval", "--benchmark", "benchmark", "--completions", f"{name}.jsonl", "--samples", "1", "--out", name
        )
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "good" / "summary.json").read_text())["pass@1"] == 1.0
    assert json.loads((tmp_path / "bad" / "summary.json").read_text())["pass@1"] == 0.0
    assert tapeout("gate", "good", "--min", "0.9", "--baseline", "bad", "--max-drop", "0").returncode == 0
    failed = tapeout("gate", "bad", "--baseline", "good/summary.json", "--max-drop", "0.1")
    assert failed.returncode == 1
    assert failed.stdout.startswith("gate: FAILED")
