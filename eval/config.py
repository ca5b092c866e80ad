"""The recipe's `eval` section, and what the stage reads."""

from typing import Literal

from pydantic import Field, model_validator

from common.schema import InputPath, Section

VERSION = 4
USUAL_K = (1, 5)


class GateConfig(Section):
    """When the score counts as a regression."""

    min: float | None = Field(default=None, ge=0, le=1, description="Lowest pass@1 that passes")
    max_drop: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Largest drop of pass@1 below the baseline's; None: 0, where a baseline is named",
    )
    baseline: Literal["base"] | InputPath | None = Field(
        default="base", description="`base`: the untuned model's score"
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="How sure a verdict must be to count as more than noise"
    )
    on_noise: Literal["pass", "fail", "more_samples"] = Field(
        default="fail",
        description="What a drop beyond max_drop counts as while noise alone explains it at that confidence; "
        "more_samples: draw more where they tell most (`tapeout run` starts its server for them, `tapeout gate` wants "
        "--endpoint), and judge again",
    )

    @property
    def asked(self) -> bool:
        """Whether a verdict is wanted: a limit, or a baseline other than the untuned model."""
        return self.min is not None or self.max_drop is not None or self.baseline not in (None, "base")


class EvalConfig(Section):
    """`eval`: pass@k on a benchmark in VerilogEval's layout."""

    benchmark: InputPath = Field(
        description="Folder of ProbNNN_name_prompt.txt, _ref.sv, _test.sv; a checkout; or the checkout's git URL"
    )
    revision: str | None = Field(default=None, description="Commit or tag of a benchmark that is a git URL")
    dataset: str | None = Field(
        default=None, description="Folder within a checkout or repository, e.g. dataset_spec-to-rtl"
    )
    prompts: Literal["plain", "official"] = Field(
        default="plain",
        description="`plain`: the prompt file alone; `official`: as the checkout's own scripts/sv-generate words it",
    )
    examples: int = Field(default=0, ge=0, le=4, description="In-context examples of the official prompts")
    extract: Literal["default", "official"] = Field(
        default="default",
        description="Which text of an answer is its design: by the rule of docs/eval.md, or by the official script's",
    )
    completions: InputPath | None = Field(
        default=None, description="Score these stored completions (JSON lines of task_id, completion) and ask no model"
    )
    self_test: bool = Field(
        default=False, description="Only run every reference, and name the problems that this simulator cannot grade"
    )
    samples: int = Field(default=5, ge=1, description="Completions per problem")
    k: tuple[int, ...] | None = Field(
        default=None, description="pass@k to report, each k <= samples; None: 1 and 5, as far as the samples reach"
    )
    temperature: float = Field(default=0.8, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=1)
    seed: int = 0
    concurrency: int = Field(default=16, ge=1, description="Requests in flight")
    request_timeout_s: float = Field(
        default=600.0, gt=0, description="Longest silence of the server within one request"
    )
    simulators: int | None = Field(default=None, ge=1, description="Simulations at a time; None: cores + 1")
    timeout_s: float = Field(default=30.0, gt=0, description="Wall clock of one simulation")
    memory_mb: int = Field(default=2048, ge=64, description="Address space of one compiler or simulator process")
    sandbox: Literal["required", "none"] = Field(
        default="required", description="`none` runs generated code unconfined: only for code you trust"
    )
    score_base: bool = Field(default=True, description="Score the base model by the same path")
    gate: GateConfig = GateConfig()

    @model_validator(mode="after")
    def _examples_are_official(self) -> "EvalConfig":
        if self.examples and self.prompts == "plain":
            raise ValueError(f"examples = {self.examples}: in-context examples come with prompts: official")
        return self

    @model_validator(mode="after")
    def _k_within_samples(self) -> "EvalConfig":
        for k in self.k or ():
            if k < 1:
                raise ValueError(f"k = {k}: pass@k needs k of at least 1")
            if k > self.samples and self.completions is None:
                raise ValueError(f"k = {k} is more than samples = {self.samples}: raise samples, or lower k")
        return self

    def reported_k(self, samples: int) -> tuple[int, ...]:
        """The pass@k to report where every problem has at least `samples` samples."""
        return tuple(sorted(set(self.k))) if self.k else tuple(k for k in USUAL_K if k <= samples)


class EvalInputs(Section):
    endpoint: str = Field(
        default="",
        description="Base URL of an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1; several with commas",
    )
    model: str = Field(default="", description="Model name to ask for")
