"""`tapeout convert --dry-run`: the stage's checks and the sizes of its result, from a process that writes nothing."""

from models.config import HardwareConfig
from pipeline.cli.commands import RecipeRun
from pipeline.run.children import ChildFailed, ask
from pipeline.run.graph import Step
from pipeline.run.runner import child_env, is_done, missing

MODULE = "convert.dry_run"


def preview_recipe(opened: RecipeRun) -> int:
    """What the recipe's convert stage would do; what it reads must be there."""
    step = next(step for step in opened.prepare(opened.digests) if step.name == "convert")
    for need in step.needs:
        if not is_done(need):
            raise missing(step, need, f"tapeout run {opened.called} --to {{stage}}")
    return _preview(step, opened.env)


def preview_alone(step: Step, hardware: HardwareConfig, debug: bool) -> int:
    """What the step that flags describe would do."""
    return _preview(step, child_env(hardware, None, debug))


def _preview(step: Step, env: dict[str, str]) -> int:
    answer = ask(MODULE, step.job(step.final), env)
    if answer.code != 0:
        raise ChildFailed(step.name, answer.code)
    print(answer.said)
    return 0
