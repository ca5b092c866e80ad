"""What is asked of a server under load."""

from typing import Annotated, Literal

from pydantic import Field

from common.schema import Section

Rate = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class BenchInputs(Section):
    endpoint: str = Field(description="URL up to and with /v1")
    models: tuple[str, ...] = Field(min_length=1, description="Names that requests take in turn: a base, its adapters")


class BenchConfig(Section):
    lengths: tuple[tuple[Count, Count], ...] = Field(min_length=1, description="Tokens (in, out) of each regime")
    rates: tuple[Rate | None, ...] = Field(
        default=(None,), min_length=1, description="Requests a second, Poisson; None: all at once"
    )
    concurrency: int | None = Field(default=None, ge=1, description="Requests open at a time; None: no bound")
    requests: int = Field(default=30, ge=1, description="Of each regime at each rate")
    samples: int = Field(default=1, ge=1, description="`n` of a request")
    spread: float = Field(
        default=0.0, ge=0.0, le=2.0, description="Sigma of log-normal lengths around those of the regime; 0: exact"
    )
    api: Literal["completions", "chat"] = Field(
        default="completions", description="completions sends token ids, chat words"
    )
    temperature: float = Field(default=0.0, ge=0.0)
    seed: int = 0
    timeout: float = Field(default=600.0, gt=0, description="Seconds that a request may take")
