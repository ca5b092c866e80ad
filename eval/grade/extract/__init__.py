"""From what a model said to the Verilog it meant, by the default rule or by the official harness's."""

from typing import Literal

from eval.grade.extract import default, official
from eval.grade.extract.verilog import TOP, without_comments

__all__ = ["TOP", "Rule", "extract", "without_comments"]

Rule = Literal["default", "official"]


def extract(completion: str, interface: str = "", rule: Rule = "default") -> str | None:
    """The Verilog to grade, or None where there is none; `interface` is the header that a completion may continue."""
    if rule == "default":
        return default.extract(completion, interface)
    code = default.writable(official.extract(completion, interface))
    return code if code.strip() else None
