"""What `tapeout run` and the stage commands do once their arguments are read."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.digests.known import Digests
from common.disk import cache_in
from common.errors import UserError
from pipeline.recipe.schema import Recipe
from pipeline.recipe.source import Source
from pipeline.report.closing import print_closing
from pipeline.report.page import write_report
from pipeline.run import checks, inputs
from pipeline.run.fetching import local_folder, local_rows
from pipeline.run.gate import Judgement, judge
from pipeline.run.gate_more import settle_run
from pipeline.run.graph import STAGES, Step, plan
from pipeline.run.records import check_result
from pipeline.run.runner import Result, Runner, alone_in, check_needs, child_env, is_done, missing, read_result
from pipeline.run.scores import find_score, note_current
from pipeline.run.server import Server, follow, start_server


@dataclass(frozen=True)
class RecipeRun:
    """Where a recipe's results are, and the environment its processes get."""

    recipe: Recipe
    source: Source
    file: Path
    sets: tuple[str, ...]
    called: str
    runs: Path
    debug: bool

    @property
    def root(self) -> Path:
        return self.runs / self.recipe.name

    @property
    def digests(self) -> Digests:
        return Digests(cache_in(self.runs) / "digests.json")

    @property
    def env(self) -> dict[str, str]:
        return child_env(self.recipe.hardware, cache_in(self.runs) / "jax", self.debug)

    def prepare(self, digests: Digests) -> tuple[Step, ...]:
        """The steps, after the checks that need no lock; raises UserError where the run cannot succeed."""
        checks.check_sense(self.recipe)
        inputs.check_apart(self.recipe, self.root)
        checks.check_writable(self.root)
        recipe = fetched(self.recipe)
        inputs.check_paths(recipe, self.source)
        steps = plan(recipe, self.runs, digests)
        digests.save()
        if not all(map(is_done, steps)):
            inputs.check_model(recipe, self.source)
        return steps


def fetched(recipe: Recipe) -> Recipe:
    """The recipe with its model and rows on this machine; where they came from is no part of a result's identity."""
    model = recipe.model
    asked = {"path": model.path, "revision": model.revision, "staging": model.staging}
    model = model.model_copy(update={**dict.fromkeys(asked), "path": local_folder(**asked)})
    return recipe.model_copy(update={"model": model, "data": local_rows(recipe.data)})


def run_recipe(opened: RecipeRun, first: str = STAGES[0], last: str = STAGES[-1]) -> int:
    """Run the stages from `first` to `last`; returns the exit code: 1 when the gate fails. Raises UserError for what
    cannot run, before anything does."""
    if STAGES.index(first) > STAGES.index(last):
        raise UserError(f"--from {first} comes after --to {last}", fix=f"the order is {', '.join(STAGES)}")
    steps = opened.prepare(digests := opened.digests)
    wanted = [step for step in steps if STAGES.index(first) <= STAGES.index(step.stage) <= STAGES.index(last)]
    checks.check_machine(wanted)
    check_needs(wanted, f"tapeout run {opened.called} --to {{stage}}")
    with alone_in(opened.root):
        note_current(opened.root, opened.recipe, opened.file, opened.sets, steps)
        results = Runner(opened.root, opened.env, digests).run(wanted)
        everything = [*results, *(read_result(step) for step in steps if step not in wanted and is_done(step))]
        everything.sort(key=lambda result: steps.index(result.step))
        verdict = _gate(opened, wanted, everything)
        report = write_report(opened.recipe, opened.root, everything, verdict)
    print_closing(results, everything, verdict, report, opened.called)
    return 0 if verdict is None or verdict.passed else 1


def _gate(opened: RecipeRun, wanted: Sequence[Step], results: Sequence[Result]) -> Judgement | None:
    """The verdict on the tuned score, where this run was to make one and the recipe asks for a verdict."""
    config = opened.recipe.eval.gate if opened.recipe.eval else None
    scores = {result.step.name: result.step.final for result in results if result.step.stage == "eval"}
    if config is None or not config.asked or not any(step.name == "eval" for step in wanted):
        return None
    if config.baseline in (None, "base"):
        baseline = scores.get("eval-base") if config.max_drop is not None and config.baseline else None
    else:
        baseline = find_score(config.baseline, "eval")
    settings = config.model_dump(mode="json")
    if baseline is not None and baseline.resolve() == scores["eval"].resolve():
        raise UserError(
            "the baseline is the very score that is judged", where="eval.gate.baseline", fix="save one that stays"
        )
    verdict = judge(scores["eval"], baseline, settings, opened.env)
    if baseline is None or not verdict.raw["undecided"]:
        return verdict
    step = next(result.step for result in results if result.step.name == "eval")
    return settle_run(step, baseline, verdict, settings, opened.root, opened.env)


def run_stage(opened: RecipeRun, stage: str) -> int:
    """Run one stage of the recipe; what it reads must be there. `serve` goes on serving until it is stopped."""
    if stage == "serve":
        return _serve(opened)
    return run_recipe(opened, stage, stage)


def _serve(opened: RecipeRun) -> int:
    steps = opened.prepare(digests := opened.digests)
    step = next(step for step in steps if step.name == "serve")
    for need in step.needs:
        if not is_done(need):
            raise missing(step, need, f"tapeout run {opened.called} --to {{stage}}")
    for done in filter(is_done, (*step.needs, step)):
        check_result(done.final, digests)
    digests.save()

    def start() -> Server:
        if is_done(step):
            return start_server(step, Path(folder), opened.env)
        with alone_in(opened.root):
            return Runner(opened.root, opened.env, digests).serve(step)

    with tempfile.TemporaryDirectory(prefix="tapeout-") as folder:
        return follow(start)
