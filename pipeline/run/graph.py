"""Which steps a recipe has, what each one reads, and hence what a change touches.

The base model is scored like the tuned one but depends on nothing that training does, so it comes early: what would
break an eval breaks before the hours of training. Options that cannot change a result are left out of fingerprints.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.benchmark.folder import benchmark_folder, is_url
from common.digests.known import Digests
from common.digests.model import model_digest, model_files
from common.schema import Section
from convert import config as convert_config
from data import config as data_config
from eval import config as eval_config
from pipeline.recipe.schema import Recipe
from pipeline.run.records import fingerprint, identity
from serve import config as serve_config
from train import config as train_config

STAGES = ("data", "train", "convert", "serve", "eval")
CONFIGS: dict[str, type[Section]] = {
    "data": data_config.DataConfig,
    "train": train_config.TrainConfig,
    "convert": convert_config.ConvertConfig,
    "serve": serve_config.ServeConfig,
    "eval": eval_config.EvalConfig,
}
INPUTS: dict[str, type[Section]] = {
    "data": data_config.DataInputs,
    "train": train_config.TrainInputs,
    "convert": convert_config.ConvertInputs,
    "serve": serve_config.ServeInputs,
    "eval": eval_config.EvalInputs,
}
VERSIONS = {
    "data": data_config.VERSION,
    "train": train_config.VERSION,
    "convert": convert_config.VERSION,
    "serve": serve_config.VERSION,
    "eval": eval_config.VERSION,
}
NOT_IN_FINGERPRINT: dict[str, frozenset[str]] = {
    "data": frozenset(),
    "train": frozenset({"keep_checkpoints", "log_every"}),
    "convert": frozenset(),
    "serve": frozenset(
        {
            *("host", "port", "max_waiting", "drain_seconds", "api_keys", "allowed_hosts", "cors_origins"),
            *("max_body_mib", "max_connections", "client_seconds"),
        }
    ),
    "eval": frozenset({"gate", "k", "simulators", "score_base", "request_timeout_s", "concurrency"}),
    "hardware": frozenset({"compile_cache"}),
}
KNOWN = "known"
"""The input of stages that check which base they work on: digests that were computed here, so that they read none."""
RESUMES = {"train": "checkpoints/*", "convert": "progress.jsonl", "eval": "samples.jsonl"}
"""Stages that go on where they were cut off, and where in their folder stands what they had finished."""


@dataclass(frozen=True)
class Step:
    """One process to run. `final` is the folder of its result; `needs` are the steps whose results it reads.

    An eval step that asks a model has no inputs before it runs: they are the address of `server`, a serve step.
    """

    name: str
    stage: str
    config: Section
    inputs: dict[str, Any]
    identity: dict[str, Any]
    final: Path
    needs: tuple["Step", ...] = ()
    server: "Step | None" = None

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity)

    def job(self, out: Path, inputs: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the stage's process reads."""
        given = INPUTS[self.stage].model_validate(self.inputs if inputs is None else inputs)
        return {"config": self.config.model_dump(mode="json"), "inputs": given.model_dump(mode="json"), "out": str(out)}


def identity_of(stage: str, config: Section, inputs: dict[str, Any], digests: Digests) -> dict[str, Any]:
    values = identity(config, digests, NOT_IN_FINGERPRINT[stage])
    return {"stage": stage, "version": VERSIONS[stage], "config": values, "inputs": inputs}


def reads_weights(stage: str, config: Section) -> bool:
    """Whether a stage reads a model's weights: preparing data, and training from random ones, does not."""
    return stage != "data" and not (isinstance(config, train_config.TrainConfig) and config.init == "random")


def plan(recipe: Recipe, runs: Path, digests: Digests) -> tuple[Step, ...]:
    """The recipe's steps, in the order they run."""
    root = runs / recipe.name
    compared = compared_rows(recipe)
    if recipe.data.contamination != "warn":  # a warning changes no row, and so no fingerprint
        recipe = recipe.model_copy(update={"data": compared})
    path = recipe.model.path
    folder = Path(path)
    weightless = {"digest": model_digest(folder, digests, weights=False)}
    model = identity(recipe.model, digests, {"path"}) | {"path": {"digest": model_digest(folder, digests)}}
    known = digests.known_of(model_files(folder))
    start = model["path"] if reads_weights("train", recipe.train) else weightless

    def step(name: str, inputs: dict[str, Any], seen: dict[str, Any], told: Section | None = None, **more: Any) -> Step:
        stage = name.removesuffix("-base")
        config = getattr(recipe, stage)
        about = identity_of(stage, config, seen, digests)
        return Step(name, stage, told or config, inputs, about, root / name / fingerprint(about), **more)

    rows = step("data", {"model": path}, {"model": weightless}, compared)
    hardware = identity(recipe.hardware, digests, NOT_IN_FINGERPRINT["hardware"])
    trained = step(
        "train",
        {
            "model": path,
            "data": str(rows.final),
            "dtype": recipe.model.dtype,
            "hardware": recipe.hardware,
            KNOWN: known,
        },
        {"model": {**model, "path": start}, "data": rows.fingerprint, "hardware": hardware},
        needs=(rows,),
    )
    merged = step(
        "convert",
        {"base": path, "adapter": str(trained.final), "probes": str(rows.final), KNOWN: known},
        {"base": model["path"], "adapter": trained.fingerprint, "probes": rows.fingerprint},
        needs=(rows, trained),
    )
    served = step(
        "serve",
        {"model": str(merged.final / "model"), "name": recipe.name, "probes": str(rows.final)},
        {"model": merged.fingerprint, "probes": rows.fingerprint},
        needs=(rows, merged),
    )
    if recipe.eval is None:
        return rows, trained, merged, served
    if recipe.eval.completions is not None:
        return rows, trained, merged, served, step("eval", {}, {})
    scored = step("eval", {}, {"server": served.fingerprint}, needs=(served,), server=served)
    if not scores_base(recipe):
        return rows, trained, merged, served, scored
    base = step("serve-base", {"model": path, "name": f"{recipe.name}-base"}, {"model": model["path"]})
    base_scored = step("eval-base", {}, {"server": base.fingerprint}, server=base)
    return rows, base_scored, trained, merged, served, scored


def compared_rows(recipe: Recipe) -> data_config.DataConfig:
    """The data section, its rows compared with the problems they will be scored on."""
    scored, data = recipe.eval, recipe.data
    if data.benchmark is not None or data.contamination == "off" or scored is None or is_url(scored.benchmark):
        return data
    return data.model_copy(update={"benchmark": str(benchmark_folder(scored.benchmark, scored.dataset).path)})


def scores_base(recipe: Recipe) -> bool:
    """Random weights have no score worth having; stored completions are one model's."""
    config = recipe.eval
    return config is not None and config.score_base and config.completions is None and recipe.train.init == "base"
