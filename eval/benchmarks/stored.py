"""Completions that another run or tool has stored, in human-eval's line format (task_id, completion)."""

import json
from collections import Counter
from pathlib import Path

from common.benchmark.problems import Benchmark
from common.errors import UserError
from eval.journal import Sample


def _task(name: object, benchmark: Benchmark, where: str) -> str:
    if isinstance(name, str):
        if name in benchmark.by_id:
            return name
        short = [task for task in benchmark.by_id if task.split("_")[0] == name]
        if len(short) == 1:
            return short[0]
    raise UserError(
        f"task_id {name!r} is no problem of {benchmark.name}", where=where, fix="score it with its benchmark"
    )


def load_completions(path: str, benchmark: Benchmark) -> list[Sample]:
    """Rows in the order of the file, repeated lines of a task numbered as its samples; UserError with file:line."""
    rows, counted = [], Counter[str]()
    for number, line in enumerate(Path(path).read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"not a line of JSON: {error}", where=where, fix="mend or remove the line") from None
        if not isinstance(row, dict) or not isinstance(row.get("completion"), str) or "task_id" not in row:
            raise UserError(
                "a line needs task_id and completion (a string)", where=where, fix="mend or remove the line"
            )
        task = _task(row["task_id"], benchmark, where)
        kept = {key: row[key] for key in ("seed", "finish_reason", "request") if key in row}
        rows.append({"task_id": task, "sample": counted[task], "completion": row["completion"], **kept})
        counted[task] += 1
    if not rows:
        raise UserError("no completions in this file", where=path, fix="give one JSON object a line")
    return rows
