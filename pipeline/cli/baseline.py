"""`tapeout baseline save`: a score as one file to commit, which `tapeout gate --baseline FILE` holds runs against."""

from pathlib import Path
from typing import Annotated

import typer

from common.errors import UserError
from common.files import write_json
from common.progress import log
from pipeline.cli.options import Debug, guarded
from pipeline.run.records import RECORD, read_record
from pipeline.run.scores import find_score, pass_at_1, read_summary

app = typer.Typer(no_args_is_help=True, help="Scores that later runs are held against.")
_KEPT = ("stage", "fingerprint", "config", "versions", "git", "ended")
_FORCE = typer.Option("--force", help="Replace a baseline that is there")


@app.callback()
def baseline() -> None:
    """Scores that later runs are held against."""


@app.command()
def save(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a recipe's results or of an eval")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The baseline's file")] = Path("baseline.json"),
    force: Annotated[bool, _FORCE] = False,
    debug: Debug = False,
) -> None:
    """Save a run's score, and what it depends on, as one file."""
    guarded(lambda: save_baseline(run, out, force), debug)


def save_baseline(run: str, out: Path, force: bool) -> int:
    """Keep the score of a run as `out`. Raises UserError where that is there, unless `force`."""
    if out.exists() and not force:
        raise UserError("this file exists", where=str(out), fix="name another, or replace it with --force")
    score = find_score(run, "eval")
    summary = read_summary(score)
    record = read_record(score) if (score / RECORD).is_file() else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, summary | {"from": {name: record.get(name) for name in _KEPT} if record else None})
    log(f"saved pass@1 {pass_at_1(summary):.3f} on {summary['benchmark']}, of {score}, as {out}")
    return 0
