"""A public function that raises an error of a user's says so where it is read: in its docstring."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.test_import_directions import FILES, REPO

ERROR = "UserError"
COMMANDS = REPO / "pipeline" / "cli"
"""Where docstrings are what `--help` prints."""


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield prefix + node.name, node


def raises(node: ast.AST) -> bool:
    """Whether it raises a UserError itself: not in what it calls, nor in an inner function."""
    for below in ast.iter_child_nodes(node):
        if isinstance(below, ast.Raise) and isinstance(below.exc, ast.Call) and ast.unparse(below.exc.func) == ERROR:
            return True
        if not isinstance(below, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and raises(below):
            return True
    return False


def silent(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [(name, node) for name, node in public(tree.body) if raises(node) and not node.decorator_list]
    where = path.relative_to(REPO).as_posix()
    return [f"{where}:{n.lineno} {name}" for name, n in found if ERROR not in (ast.get_docstring(n) or "")]


def test_user_errors_are_in_docstrings() -> None:
    files = [path for path in FILES if path.parent != COMMANDS]
    assert [line for path in files for line in silent(path)] == []
    assert sum(raises(node) for path in files for _, node in public(ast.parse(path.read_text()).body)) > 100
