"""`tapeout bench serve`: a load on any OpenAI-compatible server; figures as JSON, a table, and a page with curves."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from common.errors import UserError
from common.files import read_json, write_text
from common.progress import log
from models.config import HardwareConfig
from pipeline.cli.options import Debug, guarded
from pipeline.plan.prices import check_price
from pipeline.report.load import Point, page, table
from pipeline.run.children import ChildFailed, ask
from pipeline.run.runner import child_env

app = typer.Typer(no_args_is_help=True, help="Speed, measured.")
MODULE = "serve.bench"
PAGE, TABLE = "bench.html", "bench.md"
_LENGTHS = typer.Option("--length", metavar="INxOUT", help="Tokens of prompt and completion; give several")
_RATES = typer.Option("--qps", metavar="N|inf", help="Requests a second, Poisson; inf: all at once; give several")


@app.callback()
def bench() -> None:
    """Speed, measured."""


@app.command()
def serve(
    endpoint: Annotated[str, typer.Option(metavar="URL", help="The server's address, up to and with /v1")],
    model: Annotated[list[str], typer.Option(metavar="NAME", help="Model or adapter; several take turns")],
    length: Annotated[list[str] | None, _LENGTHS] = None,
    qps: Annotated[list[str] | None, _RATES] = None,
    requests: Annotated[int, typer.Option(metavar="N", help="Of each length at each rate")] = 30,
    concurrency: Annotated[int | None, typer.Option(metavar="N", help="Requests open at a time")] = None,
    samples: Annotated[int, typer.Option(metavar="N", help="Completions a prompt")] = 1,
    spread: Annotated[float, typer.Option(metavar="SIGMA", help="Log-normal lengths around those given; 0: exact")] = 0,
    api: Annotated[str, typer.Option(metavar="completions|chat", help="Which of the two is asked")] = "completions",
    temperature: Annotated[float, typer.Option(metavar="T")] = 0.0,
    seed: Annotated[int, typer.Option(metavar="N")] = 0,
    price: Annotated[float | None, typer.Option(metavar="USD", help="Of an hour of the server, for the costs")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the figures")] = Path("bench"),
    debug: Debug = False,
) -> None:
    """Load a server and measure throughput and latency, e.g. --length 512x256 --qps 1 --qps 4 --qps inf."""
    config = {
        "requests": requests,
        "concurrency": concurrency,
        "samples": samples,
        "spread": spread,
        "api": api,
        "temperature": temperature,
        "seed": seed,
    }

    def work() -> int:
        if price is not None:
            check_price(price)
        lengths, rates = [_length(text) for text in length or ["512x256"]], [_rate(text) for text in qps or ["inf"]]
        inputs = {"endpoint": endpoint.rstrip("/"), "models": model}
        return _bench(
            {"config": config | {"lengths": lengths, "rates": rates}, "inputs": inputs, "out": str(out.absolute())},
            out,
            price,
            debug,
        )

    guarded(work, debug)


def _length(text: str) -> tuple[int, int]:
    tokens, _, output = text.partition("x")
    if not (tokens.isdecimal() and output.isdecimal() and int(tokens) and int(output)):
        raise UserError(f"{text!r} is not INxOUT", where="--length", fix="write for example --length 512x256")
    return int(tokens), int(output)


def _rate(text: str) -> float | None:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not rate > 0:
        raise UserError(f"{text!r} is no rate", where="--qps", fix="write requests a second, or inf")
    return None if rate == math.inf else rate


def _bench(job: dict[str, Any], out: Path, price: float | None, debug: bool) -> int:
    answer = ask(MODULE, job, child_env(HardwareConfig(), None, debug))
    if answer.code != 0:
        raise ChildFailed("bench serve", answer.code, keeps=False)
    points = [Point.of(read_json(out / name), price) for name in answer.said]
    text = table(points)
    print(text)
    write_text(out / TABLE, text + "\n")
    write_text(out / PAGE, page(job["inputs"]["endpoint"], points))
    log(f"figures, table and curves: {out}")
    return 0 if all(point.failed == 0 for point in points) else 1
