"""A gate's verdict for machines and pull requests: JUnit XML, and a Markdown summary."""

import re
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

from common.files import write_bytes

_FIGURES = (
    ("pass@1", "run", "{:.3f}"),
    ("the baseline's", "baseline", "{:.3f}"),
    ("difference", "difference", "{:+.3f}"),
    ("probability of a regression", "regression_probability", "{:.2f}"),
    ("smallest difference these problems could have shown", "smallest_effect", "{:.3f}"),
)


_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML document may hold."""


def junit(verdict: dict[str, Any]) -> bytes:
    """One test case a check (`min`, `max_drop`), or one of the whole gate where it failed before these."""
    checks = [tuple(check) for check in verdict["checks"]] or [("score", verdict["passed"])]
    if not verdict["passed"] and all(held for _, held in checks):
        checks = [("score", False)]
    failures = sum(not held for _, held in checks)
    suite = xml.Element("testsuite", name="tapeout gate", tests=str(len(checks)), failures=str(failures), errors="0")
    about = xml.SubElement(suite, "properties")
    for name, path in verdict.get("on", {}).items():
        xml.SubElement(about, "property", name=name, value=_fit(path))
    for name, held in checks:
        case = xml.SubElement(suite, "testcase", classname="tapeout.gate", name=name)
        if not held:
            xml.SubElement(case, "failure", message=f"{name} does not hold").text = _fit(verdict["text"])
    xml.SubElement(suite, "system-out").text = _fit(verdict["text"])
    return _document(suite)


def junit_error(why: str, run: str) -> bytes:
    """One test case in error: the question could not be answered."""
    suite = xml.Element("testsuite", name="tapeout gate", tests="1", failures="0", errors="1")
    about = xml.SubElement(suite, "properties")
    xml.SubElement(about, "property", name="run", value=_fit(run))
    case = xml.SubElement(suite, "testcase", classname="tapeout.gate", name="score")
    xml.SubElement(case, "error", message=_fit(why.splitlines()[0])).text = _fit(why)
    return _document(suite)


def _document(suite: xml.Element) -> bytes:
    return xml.tostring(suite, encoding="utf-8", xml_declaration=True) + b"\n"


def _fit(text: str) -> str:
    return _UNFIT.sub("\ufffd", text)


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
    lines += [f"- {name}: `{path}`" for name, path in verdict.get("on", {}).items()]
    return "\n".join(lines) + "\n"


def markdown_error(why: str, run: str) -> str:
    """A heading, what was to be judged, and what the error says."""
    said = [f"    {line}" for line in why.splitlines()]
    return "\n".join(["### Eval gate: could not be judged", "", f"- run: `{run}`", "", *said]) + "\n"


def write_reports(verdict: dict[str, Any], junit_file: Path | None, markdown_file: Path | None) -> None:
    _write(junit_file, junit(verdict))
    _write(markdown_file, markdown(verdict).encode(errors="replace"))


def write_error(why: str, run: str, junit_file: Path | None, markdown_file: Path | None) -> None:
    """The same two files where there is no verdict: a job that reads them must not find yesterday's."""
    _write(junit_file, junit_error(why, run))
    _write(markdown_file, markdown_error(why, run).encode(errors="replace"))


def _write(path: Path | None, content: bytes) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
