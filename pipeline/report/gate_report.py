"""A gate's verdict for machines and pull requests: JUnit XML, and a Markdown summary."""

import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

from common.files import write_bytes, write_text

_FIGURES = (
    ("pass@1", "run", "{:.3f}"),
    ("the baseline's", "baseline", "{:.3f}"),
    ("difference", "difference", "{:+.3f}"),
    ("probability of a regression", "regression_probability", "{:.2f}"),
    ("smallest difference these problems could have shown", "smallest_effect", "{:.3f}"),
)


def junit(verdict: dict[str, Any]) -> bytes:
    """One test case a check (`min`, `max_drop`), or one of the whole gate where neither was asked for."""
    checks = [tuple(check) for check in verdict["checks"]] or [("score", verdict["passed"])]
    if not verdict["passed"] and all(held for _, held in checks):
        checks = [("score", False)]
    failures = sum(not held for _, held in checks)
    suite = xml.Element("testsuite", name="tapeout gate", tests=str(len(checks)), failures=str(failures), errors="0")
    for name, held in checks:
        case = xml.SubElement(suite, "testcase", classname="tapeout.gate", name=name)
        if not held:
            xml.SubElement(case, "failure", message=f"{name} does not hold").text = verdict["text"]
    xml.SubElement(suite, "system-out").text = verdict["text"]
    return xml.tostring(suite, encoding="utf-8", xml_declaration=True) + b"\n"


def markdown(verdict: dict[str, Any]) -> str:
    """A heading with the verdict, the figures as a table where there was a baseline, and the reasons."""
    lines = [f"### Eval gate: {'passed' if verdict['passed'] else 'FAILED'}", ""]
    found = verdict["comparison"]
    if found is not None:
        interval = f"{found['low']:+.3f} to {found['high']:+.3f}"
        rows = [(name, form.format(found[key])) for name, key, form in _FIGURES]
        rows.insert(3, ("its interval", interval))
        lines += ["| figure | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
    lines += [f"- {line}" for line in verdict["lines"]]
    return "\n".join(lines) + "\n"


def write_reports(verdict: dict[str, Any], junit_file: Path | None, markdown_file: Path | None) -> None:
    for path in filter(None, (junit_file, markdown_file)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if junit_file:
        write_bytes(junit_file, junit(verdict))
    if markdown_file:
        write_text(markdown_file, markdown(verdict))
