"""The closing step: ask `eval.score.gate`, in a process of its own, whether a stored score counts as a regression."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.errors import EXIT_USER_ERROR, UserError
from pipeline.run.children import ChildFailed, ask

SUMMARY = "summary.json"


@dataclass(frozen=True)
class Judgement:
    """`text` says why, for people; `comparison` holds the figures, where there was a baseline; `raw` is the whole."""

    passed: bool
    text: str
    comparison: dict[str, Any] | None
    raw: dict[str, Any] = field(default_factory=dict)

    def on(self, score: Path, baseline: Path | None) -> "Judgement":
        """The same, naming the scores it is on."""
        named = {"run": str(score)} | ({"baseline": str(baseline)} if baseline else {})
        text = "\n".join([self.text, *(f"  {name}: {path}" for name, path in named.items())])
        return replace(self, text=text, raw=self.raw | {"text": text, "on": named})


def judge(run: Path, baseline: Path | None, config: dict[str, Any], env: dict[str, str]) -> Judgement:
    """UserError where the question cannot be answered; ChildFailed where the process broke, which has then said why."""
    job = {"run": str(run), "baseline": str(baseline) if baseline else None, "config": config}
    answer = ask("eval.score.gate", job, env)
    if (found := answer.said) is None:
        raise ChildFailed("gate", answer.code if answer.code not in (0, 1) else EXIT_USER_ERROR)
    if "error" in found:
        raise UserError(**found["error"])
    return Judgement(found["passed"], found["text"], found["comparison"], found)
