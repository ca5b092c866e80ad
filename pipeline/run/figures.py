"""Of a stage's metrics, those that a person wants at a glance."""

from typing import Any

from pipeline.run.runner import Result

FIGURES: dict[str, tuple[str, ...]] = {
    "data": ("rows", "kept", "packed_rows", "tokens", "supervised", "efficiency"),
    "train": ("steps", "loss", "validation_loss", "tokens_per_second", "trained_parameters"),
    "convert": ("merged", "missing", "bytes"),
    "serve": ("load_seconds", "warmup_seconds", "probes", "slots"),
    "eval": ("pass@1", "pass@5", "problems", "samples", "generated_tokens"),
}
"""Which of a stage's metrics a person wants at a glance, in this order, as far as the stage reports them."""
_SHOWN = 4


def shown(value: Any) -> str:
    """A figure for people: four digits, thousands apart."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def key_figures(result: Result) -> dict[str, Any]:
    """The first few of the stage's figures that are there."""
    known = {name: result.metrics.get(name) for name in FIGURES[result.step.stage]}
    return {name: value for name, value in list(known.items()) if value is not None and not isinstance(value, dict)}


def at_a_glance(result: Result) -> str:
    """The first of its figures, on one line."""
    return ", ".join(f"{name} {shown(value)}" for name, value in list(key_figures(result).items())[:_SHOWN])
