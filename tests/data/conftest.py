"""Rows on disk, and the stage run on them with the shipped tiny tokenizer."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from data.config import DataConfig, DataInputs
from data.stage import run

TOKENIZER = Path(__file__).parents[2] / "recipes" / "assets" / "tiny-gemma4"


def _codev_row(i: int) -> dict[str, str]:
    fence = f"```verilog\nmodule TopModule (input a, output [{i}:0] z);\n  assign z = {{{i + 1}{{a}}}};\nendmodule\n```"
    thought = "It says <answer> where I think." if i % 2 else "Wires."
    return {
        "prompt": f"Fan a out to {i + 1} bits.",
        "response": f"<think>\n{thought}\n</think>\n<answer>\n{fence}\n</answer>",
    }


@pytest.fixture
def codev_row() -> Callable[[int], dict[str, str]]:
    return _codev_row


@pytest.fixture
def tokenizer_folder() -> str:
    return str(TOKENIZER)


@pytest.fixture
def rows_file(tmp_path: Path) -> Callable[[Iterable[Any]], str]:
    """Write rows (bytes go in as they are) to a JSONL file; gives its path."""

    def write(rows: Iterable[Any]) -> str:
        path = tmp_path / "rows.jsonl"
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return str(path)

    return write


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run the stage into tmp_path/NAME; gives dataset.json."""

    def prepared(
        path: str,
        name: str = "out",
        form: str = "codev-r1",
        limit: int | None = None,
        model: str = str(TOKENIZER),
        **config: Any,
    ) -> Any:
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        section = {"sources": [{"path": path, "format": form, "limit": limit}], "validation": 0.0, **config}
        run(DataConfig.model_validate(section), DataInputs(model=model), out)
        return json.loads((out / "dataset.json").read_text())

    return prepared
