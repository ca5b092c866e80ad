"""Rooms import only in the directions of the design and without cycles: read from syntax trees.

Imports stand at the top of files; ruff (PLC0415) has each late one of a room's own module explained where it stands.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
ROOMS = ("common", "models", "data", "train", "convert", "serve", "eval", "pipeline", "recipes")
ALLOWED: dict[str, set[str]] = {
    "common": set(),
    "models": {"common"},
    "data": {"common", "models"},
    "train": {"common", "models"},
    "convert": {"common", "models"},
    "serve": {"common", "models"},
    "eval": {"common"},
    "pipeline": {"common"},
    "recipes": {"common"},
}
CONFIGS = {f"{room}.config" for room in ("models", "data", "train", "convert", "serve", "eval")}
"""What the conductor may import of the other rooms; these import nothing heavy, so that it starts at once."""
MOST_ROOMS = 14
HEAVY = {"jax", "jaxlib", "flax", "optax", "qwix", "orbax", "grain", "transformers", "torch", "numpy", "datasets"}
FIRST = REPO / "tapeout.py"
FILES = sorted(path for room in ROOMS for path in (REPO / room).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(REPO).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(node: ast.Import | ast.ImportFrom, module: str, known: set[str]) -> list[str]:
    """Modules that an import statement names; `from a import b` is a.b where that is a module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        above = module.split(".")[: -node.level]
        base = ".".join([*above, *([node.module] if node.module else [])])
    return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]


def imports(path: Path, known: set[str]) -> list[tuple[int, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return [(node.lineno, name) for node in nodes for name in imported(node, module_of(path), known)]


def inner_imports(tree: ast.AST, room: str) -> Iterator[int]:
    """Lines of imports inside functions, but for those of the room's own modules: a heavy one may be loaded late."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            for below in ast.walk(node):
                own = isinstance(below, ast.ImportFrom) and (below.module or "").startswith(f"{room}.")
                if isinstance(below, ast.Import | ast.ImportFrom) and not own:
                    yield below.lineno


KNOWN = {module_of(path) for path in FILES}


def test_every_room_is_looked_at():
    assert {path.relative_to(REPO).parts[0] for path in FILES} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(REPO).as_posix())
def test_imports_of_a_file(path: Path):
    room = path.relative_to(REPO).parts[0]
    wrong = []
    for line, name in imports(path, KNOWN):
        other, external = name.split(".")[0], name.split(".")[0] not in ROOMS
        if room == "pipeline" and (name in CONFIGS or other == "pipeline"):
            continue
        if external and other in HEAVY and (room == "pipeline" or (room == "eval" and other not in ("numpy",))):
            wrong.append(f"line {line}: {name} is too heavy for {room}")
        elif not external and other != room and other not in ALLOWED[room]:
            wrong.append(f"line {line}: {room} may not import {name}")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wrong += [f"line {line}: an import inside a function or class" for line in sorted(set(inner_imports(tree, room)))]
    assert not wrong


@pytest.mark.parametrize("room", sorted({name.split(".")[0] for name in CONFIGS}))
def test_configs_import_in_milliseconds(room: str):
    path = REPO / room / "config.py"
    outside = {name.split(".")[0] for _, name in imports(path, KNOWN)} - set(ROOMS)
    inside = {name for _, name in imports(path, KNOWN) if name.split(".")[0] in ROOMS}
    assert outside <= {"typing", "pydantic", "collections", "enum", "re", "pathlib", "math"}
    assert inside <= {"common.schema", "common.errors", "models.config"}


def test_what_runs_before_the_path_is_safe():
    """It imports what the interpreter has loaded by then; and nothing imports it, since it is where all begins."""
    before = REPO / "common" / "safe_path.py"
    assert {name for _, name in imports(before, KNOWN)} == {"os", "sys"}
    assert not [path for path in FILES for _, name in imports(path, KNOWN) if name.split(".")[0] == FIRST.stem]
    at_once = [node for node in ast.parse(FIRST.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {name for node in at_once for name in imported(node, FIRST.stem, KNOWN)} == {"os", "sys"}
    assert {name for _, name in imports(FIRST, KNOWN)} & KNOWN == {"common.safe_path", "pipeline.cli.app"}


def wing_of(module: str) -> str:
    """A room's wing (`eval.grade`), or a module that stands in the room itself (`eval.stage`)."""
    return ".".join(module.split(".")[:2])


def assert_acyclic(graph: dict[str, set[str]]) -> None:
    state: dict[str, str] = {}

    def visit(node: str, trail: tuple[str, ...]) -> None:
        if state.get(node) == "open":
            pytest.fail(" -> ".join([*trail[trail.index(node) :], node]))
        if node not in state:
            state[node] = "open"
            for name in sorted(graph.get(node, set()) - {node}):
                visit(name, (*trail, node))
            state[node] = "done"

    for node in sorted(graph):
        visit(node, ())


def test_no_cycles():
    graph = {module_of(path): {name for _, name in imports(path, KNOWN) if name in KNOWN} for path in FILES}
    assert_acyclic(graph)
    wings: dict[str, set[str]] = {}
    for module, names in graph.items():
        wings.setdefault(wing_of(module), set()).update(map(wing_of, names))
    assert_acyclic(wings)


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in FILES}), ids=lambda p: p.relative_to(REPO).as_posix()
)
def test_a_wing_is_seen_at_a_glance(folder: Path):
    modules = [path for path in folder.glob("*.py") if not path.stem.startswith("__")]
    inner = [path for path in folder.iterdir() if (path / "__init__.py").is_file()]
    assert len(modules) + len(inner) <= MOST_ROOMS


def test_files_are_comfortable_rooms():
    lengths = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES if path.stem != "__init__")
    assert lengths[len(lengths) // 2] <= 120 and lengths[-1] <= 300
