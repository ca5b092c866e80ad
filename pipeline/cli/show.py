"""`tapeout show`: one sample of a run, with its verdict and its waves beside the reference's."""

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import Debug, guarded
from pipeline.run.children import ask
from pipeline.run.records import read_record
from pipeline.run.scores import find_score


def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a recipe's results or of an eval")],
    problem: Annotated[str, typer.Argument(metavar="PROBLEM", help="Its task, or its number: Prob031")],
    sample: Annotated[int | None, typer.Option(help="Which sample; else the first that failed")] = None,
    benchmark: Annotated[str | None, typer.Option(metavar="DIR", help="Where the benchmark lies now")] = None,
    base: Annotated[bool, typer.Option("--base", help="The base model's samples, of a recipe's results")] = False,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the waves, too")] = None,
    debug: Debug = False,
) -> None:
    """Print a sample: prompt, completion, verdict, first mismatch, waves."""

    def work() -> int:
        score = find_score(run, "eval-base" if base else "eval")
        config = read_record(score)["config"]
        if benchmark is not None:
            config = config | {"benchmark": benchmark, "revision": None, "dataset": None}
        drawn = svg and str(svg.absolute())
        job = {"run": str(score), "task": problem, "sample": sample, "config": config, "svg": drawn}
        answer = ask("eval.show.sample", job, dict(os.environ) | {"TAPEOUT_DEBUG": "1" if debug else "0"})
        if answer.said is not None:
            print(f"run: {score}\n\n{answer.said}")
        return answer.code

    guarded(work, debug)
