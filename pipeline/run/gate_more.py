"""A verdict that noise left undecided: more samples from the run's server (`eval.resample`), then judged again."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.digests.saved import check_digests, has_digests, write_digests
from common.files import read_json
from common.progress import log
from pipeline.run.children import ChildFailed, tell
from pipeline.run.gate import SUMMARY, Judgement, judge
from pipeline.run.graph import Step
from pipeline.run.records import read_record
from pipeline.run.server import scratch_server


@dataclass(frozen=True)
class More:
    """Where further samples come from, how many a problem, and where they are kept."""

    endpoint: str | None
    model: str | None
    samples: int
    out: Path | None


def settle(
    run: Path, baseline: Path, verdict: Judgement, config: dict[str, Any], more: More, env: dict[str, str]
) -> Judgement:
    """Judge again with further samples; without a server to ask, the verdict stays, and fails."""
    if not (more.endpoint and more.model):
        log("on_noise is more_samples, and no --endpoint and --model were given to draw them from: it counts as failed")
        return verdict
    out = more.out or run.parent / f"{run.name}.more"
    job = {
        "run": str(run),
        "out": str(out),
        "config": read_record(run)["config"] | {"completions": None},
        "baseline": read_json(_summary(baseline)),
        "endpoint": more.endpoint,
        "model": more.model,
        "more": more.samples,
    }
    if code := tell("eval.resample", job, env):
        raise ChildFailed("gate", code)
    return judge(out, baseline, _settled(config), env)


def settle_run(
    step: Step, baseline: Path, verdict: Judgement, config: dict[str, Any], root: Path, env: dict[str, str]
) -> Judgement:
    """The same at the end of a recipe's run, as many samples again from its own server; drawn once, then kept."""
    run, samples = step.final, read_record(step.final)["config"]["samples"]
    known = hashlib.sha256(_summary(baseline).read_bytes()).hexdigest()[:8]
    out = run.parent / f"{run.name}.more-{samples}-{known}"
    if has_digests(out):
        check_digests(out, "delete this folder, and run the same command again")
        return judge(out, baseline, _settled(config), env)
    if step.server is None:
        log("on_noise is more_samples, and stored completions have no server to draw them from: it counts as failed")
        return verdict
    log(verdict.text)
    with scratch_server(step.server, root, env) as server:
        more = More(server.endpoint["url"], server.endpoint["name"], samples, out)
        found = settle(run, baseline, verdict, config, more, env)
    write_digests(out)
    return found


def _summary(score: Path) -> Path:
    return score / SUMMARY if score.is_dir() else score


def _settled(config: dict[str, Any]) -> dict[str, Any]:
    return config | {"on_noise": "fail"}
