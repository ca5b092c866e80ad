"""A recipe's text is read as it looks, or refused with its line, whatever it holds."""

import re
import resource
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from pipeline.recipe.plain_yaml import DEEPEST, LARGEST, MOST_VALUES, Dumper, compose, scalar
from pipeline.recipe.schema import load_recipe
from pipeline.recipe.source import Source, read_source

BASE = "name: s\nmodel: {path: m}\ndata: {sources: [{path: r}]}\n"
NUMBERISH = "0123456789_:.xobeEaf+-"


def tree(tmp_path: Path, text: str) -> dict[str, Any]:
    (tmp_path / "r.yaml").write_bytes(text.encode())
    return read_source(tmp_path / "r.yaml", "r.yaml").tree


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        tree(tmp_path, text)
    assert re.search(r"r\.yaml:\d+", caught.value.where), str(caught.value)
    return f"{caught.value.where} {caught.value.what}"


@given(st.text(NUMBERISH, min_size=1, max_size=9))
def test_a_number_is_what_it_looks_like(text: str) -> None:
    """Both versions of YAML, Python and a person agree on every number that is read; all else is a word."""
    try:
        node = compose(text, str)
    except UserError:
        return
    value = scalar(node) if isinstance(node, yaml.ScalarNode) else None
    if isinstance(value, int | float):
        assert value == float(text) and "_" not in text and not re.match(r"[-+]?0[0-9]", text)
        assert isinstance(value, float) or yaml.safe_load(text) == value


PRINTED = st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp", "Cs"))
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(PRINTED, max_size=6)
    | st.text(NUMBERISH + "yesnoff<=~", max_size=6)
)


@given(
    st.recursive(
        PLAIN,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc<01", min_size=1), inner, max_size=3),
        max_leaves=6,
    )
)
def test_what_is_written_out_reads_back(value: Any) -> None:
    text = yaml.dump({"value": value}, Dumper=Dumper, allow_unicode=True)
    if "<<" in text:
        return
    source = Source("s", {})
    source.set("a=" + text)
    assert source.tree == {"a": {"value": value}}


@pytest.mark.parametrize(
    "written",
    ["1:00:00", "010", "0o17", "0x1F", "0b11", "1_000", "1e3", "+.inf", "9" * 40, "!!int 3", "yes", "2024-01-01"],
)
@pytest.mark.parametrize("how", ["file", "set"])
def test_an_integer_that_is_none_is_refused_with_its_place(tmp_path: Path, written: str, how: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(BASE + (f"train:\n  steps: {written}\n" if how == "file" else ""))
    with pytest.raises(UserError, match=r"r\.yaml:5" if how == "file" else "--set train.steps="):
        load_recipe(str(path), [f"train.steps={written}"] if how == "set" else [])


@pytest.mark.parametrize("written", [".inf", "-.INF", ".nan", "1e999", "1:30.5", "1_0.5", "0x1p3"])
def test_a_rate_is_a_finite_decimal(tmp_path: Path, written: str) -> None:
    (tmp_path / "r.yaml").write_text(BASE + f"train:\n  learning_rate: {written}\n")
    with pytest.raises(UserError, match=r"r\.yaml:5: train\.learning_rate: must be a (valid|finite) number"):
        load_recipe(str(tmp_path / "r.yaml"))


def test_words_stay_words(tmp_path: Path) -> None:
    found = tree(tmp_path, "a: on\nb: no\nc: 2024-01-01\nd: '010'\ne: 12:30\nf: 0077\ng: =\n")
    assert found == {"a": "on", "b": "no", "c": "2024-01-01", "d": "010", "e": "12:30", "f": "0077", "g": "="}


@pytest.mark.parametrize("opening", ["[", "{a: "])
@pytest.mark.parametrize("width", [2, 9, 40])
@pytest.mark.parametrize("place", ["extra", "description", "data"])
def test_aliases_count_as_what_they_stand_for(tmp_path: Path, opening: str, width: int, place: str) -> None:
    """Of every shape: refused once they stand for more than the limit, whole until then."""
    closing = "]" if opening == "[" else "}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def layer(inner: str) -> str:
        items = [inner] * width if opening == "[" else [f"k{i}: {inner}" for i in range(width)]
        return ("[" if opening == "[" else "{") + ", ".join(items) + closing

    def text(depth: int) -> str:
        levels = [f"  a0: &a0 {layer('x')}"] + [f"  a{i}: &a{i} {layer(f'*a{i - 1}')}" for i in range(1, depth)]
        return "\n".join([f"{place}:", *levels])

    assert len(tree(tmp_path, text(1))[place]["a0"]) == width
    assert "more than" in refused(tmp_path, text(30))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x [1, *x]", "r.yaml:1 *x stands for something that contains it"),
        ("a: 1\nb: &x {c: {d: *x}}", "r.yaml:2 *x stands for"),
        ("a: 1\nb: *x", "r.yaml:2 not valid YAML: found undefined alias"),
        ("a: &x {b: 1}\nc:\n  <<: *x", "r.yaml:3 merge keys"),
        ("a:\n  <<: [{b: 1}]", "r.yaml:2 merge keys"),
        ("a: !!python/object/apply:os.system ['ls']", "r.yaml:1 a tag"),
        ("a: 1\nb: !mine x", "r.yaml:2 a tag"),
        ("a: ! x", "r.yaml:1 a tag"),
        ("a: 1\nb: 2\na: 3", "r.yaml:1 and 3 a is written twice"),
        ("a: 1\n'a': 3", "r.yaml:1 and 2 a is written twice"),
        ("? [a]\n: b", "r.yaml:1 a key is a word"),
        ("a: 1\n---\nb: 2", "r.yaml:2 not valid YAML"),
        ("a: 1\nb: \x07", "r.yaml:2 not valid YAML: a character"),
        ('a: 1\nb: "\\ud800"', "r.yaml:2 half a character"),
        ("- a", "r.yaml:1 a recipe is a mapping"),
        ("a: " + "[" * (DEEPEST + 1), "r.yaml:1 nested more than"),
        ("a:\n" + "- " * (LARGEST // 2 - 4), "r.yaml:2 nested more than"),
        ("a: [" + "x," * MOST_VALUES + "]", "r.yaml:1 more than"),
        ("#\n" * LARGEST, "r.yaml:1 more than 256 KiB"),
    ],
)  # fmt: skip
def test_what_no_recipe_needs_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert refused(tmp_path, text).startswith(said)


def test_a_long_text_weighs_by_its_length(tmp_path: Path) -> None:
    """A list of aliases of one long text is no longer than its name, and would be gigabytes written out."""
    long, few = "x" * (LARGEST // 2), "[" + ", ".join(["*x"] * 3) + "]"
    assert "more than" in refused(tmp_path, f"a: &x {long}\nb: {few}\nc: {few}")
    assert len(tree(tmp_path, f"description: {long}")["description"]) == LARGEST // 2


def test_a_short_alias_is_followed(tmp_path: Path) -> None:
    assert tree(tmp_path, "a: &x [1, 2]\nb: *x")["b"] == [1, 2]
