"""A change touches the steps that read it, and no others."""

import os
import shutil
from pathlib import Path

import pytest

from common.digests.known import Digests
from data.sources.files import files_of
from pipeline.recipe.schema import load_recipe
from pipeline.run.graph import plan
from pipeline.run.records import identity

ALL = {"data", "train", "convert", "serve", "eval", "eval-base"}
EVALS = {"eval", "eval-base"}
AFTER_TRAIN = {"train", "convert", "serve", "eval"}


def fingerprints(recipe: Path, *sets: str) -> dict[str, str]:
    return {step.name: step.fingerprint for step in plan(load_recipe(str(recipe), sets), Path("runs"), Digests())}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("data.max_length=128", ALL - {"eval-base"}),
        ("data.seed=1", ALL - {"eval-base"}),
        ("train.lora.rank=8", AFTER_TRAIN),
        ("train.steps=7", AFTER_TRAIN),
        ("train.log_every=2", set()),
        ("hardware.mesh={data: 1}", AFTER_TRAIN),
        ("hardware.compile_cache=false", set()),
        ("convert.peft=false", AFTER_TRAIN - {"train"}),
        ("serve.dtype=bfloat16", {"serve", *EVALS}),
        ("serve.port=9999", set()),
        ("eval.samples=3", EVALS),
        ("eval.temperature=0.5", EVALS),
        ("eval.simulators=1", set()),
        ("eval.k=[1]", set()),
        ("eval.gate.min=0.9", set()),
        ("description=other words", set()),
    ],
)
def test_a_setting_touches_what_reads_it(small: Path, assignment: str, expected: set[str]):
    assert changed(fingerprints(small), fingerprints(small, assignment)) == expected


def edited(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("rows.jsonl", ALL - {"eval-base"}),
        ("benchmark/notes.txt", EVALS),
        ("model/config.json", ALL),
        ("model/generation_config.json", ALL),
        ("model/tokenizer.json", ALL),
        ("model/tokenizer_config.json", ALL),
        ("model/special_tokens_map.json", ALL),
        ("model/added_tokens.json", ALL),
        ("model/chat_template.jinja", ALL),
        ("model/NOTES.txt", set()),
        ("model/README.md", set()),
        ("model/other.safetensors", set()),
        ("model/model.safetensors", ALL - {"data"}),
    ],
)
def test_content_touches_what_reads_it(small: Path, tmp_path: Path, file: str, expected: set[str]):
    model = Path(load_recipe(str(small)).model.path)
    shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    for name in ("model/NOTES.txt", "model/README.md", "model/other.safetensors", "benchmark/notes.txt"):
        (tmp_path / name).write_bytes(b"notes")
    for name in ("special_tokens_map.json", "added_tokens.json"):
        (tmp_path / "model" / name).write_bytes(b"{}")
    before = fingerprints(small, "model.path=model")
    edited(tmp_path / file)
    assert changed(before, fingerprints(small, "model.path=model")) == expected


@pytest.mark.parametrize(
    ("path", "name", "counts"),
    [
        ("'*.jsonl'", "other.jsonl", True),
        ("'*.jsonl'", "runs/small/eval/f/samples.jsonl", False),
        ("'*.jsonl'", "notes.txt", False),
        ("rows", "rows/deep/more.json.gz", True),
        ("rows", "rows/.hidden/more.csv", False),
        ("rows", "rows/README.md", False),
        ("'rows/**/a*.csv'", "rows/deep/a.csv", True),
        ("'rows/**/a*.csv'", "rows/deep/b.csv", False),
    ],
)
def test_a_folder_of_rows_is_known_by_those_that_are_read(small: Path, path: str, name: str, counts: bool):
    """And by no others: a recipe beside its rows is not another one because it has results there."""
    (small.parent / "rows").mkdir()
    before = fingerprints(small, f"data.sources.0.path={path}")
    file = small.parent / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"{}")
    after = fingerprints(small, f"data.sources.0.path={path}")
    assert changed(before, after) == (ALL - {"eval-base"} if counts else set())
    if counts:
        (source,) = load_recipe(str(small), [f"data.sources.0.path={path}"]).data.sources
        assert os.fspath(file) in files_of(source)


def test_a_place_is_no_content(small: Path, tmp_path: Path):
    before = fingerprints(small)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("small.yaml", "rows.jsonl", "benchmark"):
        (tmp_path / name).rename(moved / name)
    assert fingerprints(moved / "small.yaml") == before


def test_random_weights_are_not_scored(small: Path):
    steps = fingerprints(small, "train.init=random", "train.method=full")
    assert "eval-base" not in steps
    assert "eval-base" not in fingerprints(small, "eval.score_base=false")


def test_a_recipe_without_eval_ends_with_serve(small: Path):
    assert list(fingerprints(small, "eval=null")) == ["data", "train", "convert", "serve"]


def test_the_base_is_scored_before_training(small: Path):
    assert list(fingerprints(small)) == ["data", "eval-base", "train", "convert", "serve", "eval"]


def test_digests_are_remembered_until_a_file_changes(tmp_path: Path):
    file, memory = tmp_path / "file", tmp_path / "memory.json"
    file.write_bytes(b"one")
    first = Digests(memory)
    assert first.of(file) == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    about = file.stat()
    first.known[str(file)] = (3, about.st_ino, about.st_mtime_ns, about.st_ctime_ns, "remembered")
    first.changed = True
    first.save()
    assert Digests(memory).of(file) == "remembered"
    file.write_bytes(b"four")
    assert Digests(memory).of(file) != "remembered"


def test_a_change_under_an_old_time_is_seen(tmp_path: Path):
    file, memory = tmp_path / "file", tmp_path / "memory.json"
    file.write_bytes(b"one")
    digests = Digests(memory)
    before, about = digests.of(file), file.stat()
    digests.save()
    file.write_bytes(b"two")
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert digests.of(file) != before and Digests(memory).of(file) == digests.of(file)


def test_what_was_known_is_not_read_again(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"one")
    digests = Digests()
    digests.of(tmp_path)
    known = {path: (*each[:4], "told") for path, each in digests.known_of([tmp_path / "file"]).items()}
    assert Digests(known=known).of(tmp_path / "file") == "told"


def test_a_damaged_memory_is_forgotten(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"one")
    (tmp_path / "memory.json").write_bytes(b"{")
    digests = Digests(tmp_path / "memory.json")
    assert digests.of(tmp_path / "file").startswith("7692c3ad")


def test_an_optional_input_path_is_read_by_content(small: Path, tmp_path: Path):
    (tmp_path / "stored.jsonl").write_bytes(b"one")
    recipe = load_recipe(str(small), ["eval.completions=stored.jsonl"])
    assert recipe.eval is not None
    assert identity(recipe.eval, Digests())["completions"] == {
        "digest": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    }


def test_stored_completions_need_no_server(small: Path, tmp_path: Path):
    (tmp_path / "stored.jsonl").write_bytes(b"{}")
    steps = plan(load_recipe(str(small), ["eval.completions=stored.jsonl"]), Path("runs"), Digests())
    assert [step.name for step in steps] == ["data", "train", "convert", "serve", "eval"]
    assert steps[-1].server is None and steps[-1].needs == ()
