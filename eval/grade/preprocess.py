"""From a design to the one text that is judged and simulated: the simulator's own preprocessor, confined, in a folder
that holds nothing but the design; then its words (`eval.grade.admit`)."""

import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from eval.grade.admit import Refused, admit
from eval.grade.verdict import Verdict, check_room, first_line
from eval.sandbox import run as sandbox
from eval.sandbox.run import MIB, Kind, Limits

LONGEST = 4 * MIB
"""Bytes of a design, before macros are expanded and after."""
_UNPARSED = re.compile(r"syntax error|I give up|[Mm]alformed|[Ii]nvalid module item|Stray tic|[Mm]issing close quote")
_INCLUDE = re.compile(r"Include file (\S+) not found|[Uu]nable to open include file|Include file")
_DESIGN, _TEXT, _INCLUDED = "design.sv", "preprocessed.sv", "included"


def _bounded(limits: Limits) -> Limits:
    return replace(limits, file_size=min(limits.file_size, 4 * LONGEST))


def _expanded(raw: bytes, sandbox_kind: Kind, limits: Limits) -> str | Verdict:
    """The text with every macro expanded, or why there is none."""
    with sandbox.workplace() as (folder, above):
        Path(folder, _DESIGN).write_bytes(raw)
        argv = ["iverilog", "-E", "-g2012", f"-Minclude={_INCLUDED}", "-o", _TEXT, _DESIGN]
        done = sandbox.run(argv, folder=folder, kind=sandbox_kind, limits=_bounded(limits), writable=above)
        if done.stopped:
            return Verdict("timeout", f"the preprocessor ran over its limit of {done.stopped}")
        written, included = Path(folder, _TEXT), Path(folder, _INCLUDED)
        if done.code == 0 and written.is_file() and not written.is_symlink():
            if included.stat().st_size:  # of the system's files: what one says differs from machine to machine
                return Verdict("rejected", f"a file that the design includes: {first_line(included.read_text())}")
            if written.stat().st_size > LONGEST:
                return Verdict("elaboration", "the macros expand to more than can be compiled")
            return written.read_bytes().decode(errors="replace")
        check_room(folder)
    said = first_line(done.output)
    if _INCLUDE.search(done.output):
        return Verdict("rejected", f"a file that the design includes: {said}")
    return Verdict("syntax", said or "the preprocessor died of its limits")


def _parses(raw: bytes, sandbox_kind: Kind, limits: Limits) -> str:
    """What the parser says of a text that is not Verilog at all; empty where it parses."""
    with sandbox.workplace() as (folder, above):
        Path(folder, _DESIGN).write_bytes(raw)
        os.mkdir(os.path.join(folder, "empty"))
        argv = ["iverilog", "-g2012", "-tnull", "-s", "TopModule", _DESIGN]
        done = sandbox.run(argv, folder=folder, kind=sandbox_kind, limits=_bounded(limits), writable=above)
    return first_line(done.output) if _UNPARSED.search(done.output) else ""


def admitted(
    design: str,
    sandbox_kind: Kind,
    limits: Limits,
    bounded: Callable[[float], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> str | Verdict:
    """The text to simulate, or the verdict on a design that cannot be, or must not be. What is done in this process is
    done within `bounded(seconds)`; the programs have limits of their own.

    A text that the parser cannot read either is a syntax error, whatever words are in it: prose is no attack.
    """
    raw = design.encode(errors="replace").removeprefix(b"\xef\xbb\xbf")
    if len(raw) > LONGEST:
        return Verdict("elaboration", f"a design of {len(raw) >> 20} MiB")
    if b"\0" in raw:
        return Verdict("syntax", "a NUL character")
    text = raw.decode()
    if "`" in text:
        expanded = _expanded(raw, sandbox_kind, limits)
        if isinstance(expanded, Verdict):
            return expanded
        text = expanded
    try:
        with bounded(limits.seconds):
            return admit(text)
    except Refused as refused:
        said = _parses(raw, sandbox_kind, limits)
        return Verdict("syntax", said) if said else Verdict("rejected", str(refused))
