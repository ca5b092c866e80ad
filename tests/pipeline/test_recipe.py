"""Recipes: what is shipped resolves as recorded, what is wrong is named with its place and the nearest right name."""

import json
from pathlib import Path

import pytest

from common.errors import UserError
from pipeline.cli.copying import copied
from pipeline.recipe.schema import Recipe, find_recipe, load_recipe, resolved_yaml, shipped_folder, shipped_recipes
from pipeline.recipe.suggest import KEYS, SHORT, VALUES, names_of

GOLDEN = Path(__file__).parent / "golden"
MINIMAL = """\
name: one
model:
  path: model
data:
  sources:
    - path: rows.jsonl
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "one.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def problems(path: str, *sets: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(path, sets)
    return str(caught.value).replace(path, "one.yaml")


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_a_shipped_recipe_resolves_as_recorded(name: str):
    """To record a change: tapeout check NAME > tests/pipeline/golden/NAME.yaml"""
    assert resolved_yaml(load_recipe(name)) == (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")


def test_every_golden_file_has_its_recipe():
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(shipped_recipes())


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_the_resolved_form_reads_back_as_itself(name: str, tmp_path: Path):
    recipe = load_recipe(name)
    assert load_recipe(written(tmp_path, resolved_yaml(recipe))) == recipe


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_a_copy_is_the_same_recipe(name: str, tmp_path: Path):
    text, called = copied(find_recipe(name), tmp_path / "one.yaml")
    assert called == "one"
    assert load_recipe(written(tmp_path, text)) == load_recipe(name, ["name=one"])
    assert text.splitlines()[0] == find_recipe(name).read_text(encoding="utf-8").splitlines()[0]


def test_a_copy_of_a_users_recipe_names_its_files_absolutely(tmp_path: Path):
    (tmp_path / "rows.jsonl").touch()
    assert f'path: "{tmp_path}/rows.jsonl"' in copied(Path(written(tmp_path, MINIMAL)), tmp_path / "two.yaml")[0]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("mine.yaml", "mine"),
        ("one.yaml", "one-copy"),
        ("1e5.yaml", "1e5"),
        ("010.yaml", "010"),
        ("true.yaml", "true"),
        ("my first try!.yaml", "my-first-try-"),
        ("ünü.yaml", "n-"),
        ("...yaml", "recipe"),
    ],
)
@pytest.mark.parametrize("spelled", ["name: one", "name:   'one'  # its name", '"name": "one"'])
def test_a_copy_has_a_name_of_its_own(tmp_path: Path, target: str, name: str, spelled: str):
    original = Path(written(tmp_path, MINIMAL.replace("name: one", spelled)))
    text, called = copied(original, tmp_path / target)
    assert called == name
    (tmp_path / "copy.yaml").write_text(text, encoding="utf-8")
    assert load_recipe(str(tmp_path / "copy.yaml")) == load_recipe(str(original), [f"name='{name}'"])


def test_paths_are_beside_the_recipe_or_shipped(tmp_path: Path):
    (tmp_path / "rows.jsonl").touch()
    recipe = load_recipe(written(tmp_path, MINIMAL), ["model.path=recipes:assets/tiny-gemma4"])
    assert recipe.data.sources[0].path == str(tmp_path / "rows.jsonl")
    assert recipe.model.path == str(shipped_folder() / "assets/tiny-gemma4")


def test_numbers_are_read_as_people_write_them(tmp_path: Path):
    text = MINIMAL + "train:\n  learning_rate: 1e-4\n  epochs: 2\ndescription: on\n"
    recipe = load_recipe(written(tmp_path, text))
    assert recipe.train.learning_rate == 1e-4
    assert recipe.train.epochs == 2.0
    assert recipe.description == "on"


def test_set_reaches_every_depth(tmp_path: Path):
    path = written(tmp_path, MINIMAL)
    recipe = load_recipe(
        path, ["train.lora.rank=4", "data.sources.0.limit=7", "train.lora.targets=[q, kv]", "train.steps=null"]
    )
    assert recipe.train.lora.rank == 4
    assert recipe.data.sources[0].limit == 7
    assert recipe.train.lora.targets == ("q", "kv")
    assert recipe.train.steps is None


def test_every_problem_is_reported_at_once(tmp_path: Path):
    text = MINIMAL + (
        "train:\n  method: lorra\n  lora:\n    rnak: 8\n    rank: 0\n  steps: '3'\n  rank: 8\n"
        "evil:\n  samples: 5\nhardware:\n  mesh: [1, 4]\n"
    )
    assert problems(written(tmp_path, text)) == "\n".join(
        [
            "7 problems in one.yaml",
            "  one.yaml:8: train.method: must be 'lora' or 'full', not \"lorra\"; did you mean lora?",
            "  one.yaml:11: train.lora.rank: must be greater than or equal to 1, not 0",
            "  one.yaml:10: train.lora.rnak: unknown key; did you mean train.lora.rank?",
            '  one.yaml:12: train.steps: must be a valid integer, not "3"',
            "  one.yaml:13: train.rank: unknown key; did you mean train.lora.rank?",
            "  one.yaml:17: hardware.mesh: must be 'auto' or a mapping, not [1, 4]",
            "  one.yaml:14: evil: unknown key; did you mean eval?",
        ]
    )


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        (
            "train.lora.rank=0",
            "a problem in one.yaml\n"
            "  --set train.lora.rank=0: train.lora.rank: must be greater than or equal to 1, not 0",
        ),
        (
            "train.stesp=9",
            "a problem in one.yaml\n  --set train.stesp=9: train.stesp: unknown key; did you mean train.steps?",
        ),
        (
            "convert.zzz=9",
            "a problem in one.yaml\n  --set convert.zzz=9: convert.zzz: unknown key; valid here: peft, step, "
            "checkpoints, weights, max_shard_size, verify, max_kl, quantize, partial",
        ),
        (
            "hardware.mesh={tpp: 4}",
            "a problem in one.yaml\n"
            "  --set hardware.mesh={tpp: 4}: hardware.mesh.tpp: must be 'data', 'fsdp' or 'tp', not \"tpp\"; "
            "did you mean tp?",
        ),
        (
            "eval={benchmark: b, k: [9]}",
            "a problem in one.yaml\n"
            "  --set eval={benchmark: b, k: [9]}: eval: k = 9 is more than samples = 5: raise samples, or lower k",
        ),
        (
            "train",
            "--set takes KEY=VALUE\n  where: --set train\n  to do: for example --set train.lora.rank=16",
        ),
        (
            "name.first=x",
            "name is a single value, it has no keys\n  where: --set name.first=x",
        ),
        (
            "data.sources.1.limit=3",
            "data.sources is a list of 1, numbered from 0\n  where: --set data.sources.1.limit=3",
        ),
    ],
)
def test_a_wrong_set_names_itself(tmp_path: Path, assignment: str, message: str):
    assert problems(written(tmp_path, MINIMAL), assignment) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "3 problems in one.yaml\n  one.yaml: name: this key is missing\n"
             "  one.yaml: model: this key is missing\n  one.yaml: data: this key is missing"),
        ("name: x\nmodel: {path: a\n", 
         "not valid YAML: expected ',' or '}', but got '<stream end>'\n  where: one.yaml:3"),
        ("- name\n", "a recipe is a mapping of sections\n  where: one.yaml:1"),
        ("name: x\nmodel: {path: a}\nname: y\n", "name is written twice\n  where: one.yaml:1 and 3"),
        (MINIMAL.replace("name: one", "name: a/b"),
         "a problem in one.yaml\n  one.yaml:1: name: must match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$', not \"a/b\""),
        (MINIMAL.replace("    - path: rows.jsonl", "    - format: text"),
         "a problem in one.yaml\n  one.yaml:6: data.sources.0.path: this key is missing"),
    ],
)  # fmt: skip
def test_a_wrong_file_names_its_line(tmp_path: Path, text: str, message: str):
    assert problems(written(tmp_path, text)) == message


@pytest.mark.parametrize(
    ("assignment", "meant"),
    [
        ("train.lr=1", "train.learning_rate"),
        ("lr=1", "train.learning_rate"),
        ("train.r=8", "train.lora.rank"),
        ("lora.rank=8", "train.lora"),
        ("train.lora.target_modules=[q]", "train.lora.targets"),
        ("train.max_grad_norm=1", "train.clip_norm"),
        ("data.max_seq_length=1", "data.max_length"),
        ("serve.max_model_len=1", "serve.max_length"),
        ("eval.max_new_tokens=1", "eval.max_tokens"),
        ("model.name_or_path=x", "model.path"),
        ("evaluation=1", "eval"),
        ("train.batchsize=1", "train.batch_size"),
        ("model.dtype=bf16", "bfloat16"),
        ("model.dtype=flaot32", "float32"),
        ("convert.verify=true", "on"),
        ("train.final_lr=1", "train.final_learning_rate"),
        ("train.lr_final=1", "train.final_learning_rate"),
        ("train.end_lr=1", "train.final_learning_rate"),
        ("train.lora_r=1", "train.lora.rank"),
        ("train.q_proj=1", "train.lora.targets"),
        ("train.qlora=true", "train.weights"),
        ("train.keep=1", "train.keep_checkpoints"),
        ("data.val=0.1", "data.validation"),
        ("max_len=1", "data.max_length"),
        ("serve.batch_size=1", "serve.slots"),
        ("hardware.tp=1", "hardware.mesh"),
        ("eval.gate.tolerance=1", "eval.gate.max_drop"),
    ],
)
def test_suggestions_fit(tmp_path: Path, assignment: str, meant: str):
    assert f"did you mean {meant}?" in problems(written(tmp_path, MINIMAL), assignment)


@pytest.mark.parametrize("assignment", ["eval.top_k=1", "train.lora.dropout=1", "train.optimizer=lion"])
def test_what_there_is_not_gets_no_suggestion(tmp_path: Path, assignment: str):
    said = problems(written(tmp_path, MINIMAL), assignment)
    assert "did you mean" not in said and "valid here" in said


def test_a_synonym_is_of_a_key_that_there_is():
    """Each value of the tables is a name of the schema or one of its choices, so that a renamed key is noticed."""
    names = {name[-1] for name in names_of(Recipe, ())}
    assert set(KEYS.values()) <= names | {""}
    assert {part for value in SHORT.values() for part in value.split("_")} <= {
        part for name in names for part in name.split("_")
    } | {""}
    written = json.dumps(Recipe.model_json_schema())
    assert all(f'"{value}"' in written for value in VALUES.values())


def test_a_misspelt_recipe_is_guessed():
    with pytest.raises(UserError, match="did you mean quickstart"):
        load_recipe("quikstart")


def test_schema_describes_every_section():
    schema = Recipe.model_json_schema()
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["additionalProperties"] is False
    json.dumps(schema)
