"""What the problems become: prompt and response rows, pre-training documents, and a benchmark folder."""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from common.benchmark import problems as posed
from common.benchmark import verilog_eval
from common.files import write_text
from recipes.starter.problem import Problem
from recipes.starter.split import held_out, train_problems

WRAPPED_SHARE = 0.25
TWO_MODULES_SHARE = 0.1
ECHO_PIECES = 40
PIECES = re.compile(r" ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]+|\n")


def row(problem: Problem, *, wrap: bool = False) -> dict[str, str]:
    """One row in CodeV-R1's shape."""
    thought = " ".join(problem.thought)
    answer = f"```verilog\n{problem.code('TopModule')}```"
    return {
        "prompt": problem.prompt(wrap=wrap),
        "response": f"<think>\n{thought}\n</think>\n<answer>\n{answer}\n</answer>",
    }


def rows(n: int, seed: int) -> list[dict[str, str]]:
    """`n` different rows from the training side of the split."""
    rng = Random(f"rows {seed}")
    found: dict[str, dict[str, str]] = {}
    for problem in train_problems(seed):
        if len(found) >= n:
            break
        key = problem.description + problem.interface() + problem.code("TopModule")
        found.setdefault(key, row(problem, wrap=rng.random() < WRAPPED_SHARE))
    return list(found.values())


def corpus(n: int, seed: int) -> Iterator[str]:
    """`n` Verilog source files as found in the wild, for pre-training: a header comment, then the module."""
    rng = Random(f"corpus {seed}")
    problems = train_problems(seed, "corpus")
    for _ in range(n):
        count = 2 if rng.random() < TWO_MODULES_SHARE else 1
        yield "\n".join(_document(problem, rng) for problem in islice(problems, count))


def echoes(n: int, seed: int) -> Iterator[dict[str, list[dict[str, str]]]]:
    """`n` conversations that answer words with the same words: the words of training rows, in random order.

    What pre-training documents never hold (turn tokens, fences, the prompts' phrases) would keep its random vector, and
    a fine-tuning that adapts products alone could not tell one such token from another. Nothing of the task is in them.
    """
    rng = Random(f"echoes {seed}")
    texts = (text for each in rows(1000, 0) for text in each.values())
    words = sorted({piece for text in texts for piece in PIECES.findall(text)})
    for _ in range(n):
        pieces = rng.choices(words, k=ECHO_PIECES)
        text = "".join(piece if piece[0] in " \n" else f"\n{piece}" for piece in pieces).strip()
        yield {"messages": [{"role": role, "content": text} for role in ("user", "assistant")]}


def _document(problem: Problem, rng: Random) -> str:
    return f"{_comment(problem, rng)}\n{problem.code(problem.name)}"


def _comment(problem: Problem, rng: Random) -> str:
    """The header: the description in one of several voices, the ports in one of several lists, // or /* */."""
    verb, _, rest = problem.lead.partition(" ")
    first = rng.choice(
        (
            f"The module should {problem.lead}.",
            f"This module {_third_person(verb)} {rest}.",
            f"{_third_person(verb).capitalize()} {rest}.",
            f"{problem.name}: {problem.lead}.",
        )
    )
    prose = " ".join((first, *problem.details))
    text = rng.choice((prose, textwrap.fill(prose, 76)))
    ports = rng.choice((problem.interface(), "Ports:\n" + problem.interface(), _port_table(problem)))
    title = rng.choice(("", "", f"Module: {problem.name}\n\n", f"{problem.name}.v\n\n"))
    parts = [ports, text] if rng.random() < 0.6 else [text, ports]
    lines = (title + "\n\n".join(parts)).split("\n")
    if rng.random() < 0.5:
        return "/*\n" + "\n".join(lines) + "\n*/"
    return "\n".join(f"// {line}".rstrip() for line in lines)


def _port_table(problem: Problem) -> str:
    def kind(width: int) -> str:
        return f"{width} bits" if width > 1 else "1 bit"

    return "\n".join(f"  {p.name}: {p.direction}, {kind(p.width)}" for p in problem.ports)


def _third_person(verb: str) -> str:
    if verb == "be":
        return "is"
    return (
        verb + ("es" if verb.endswith(("s", "x", "ch", "sh")) else "s") if not verb.endswith("y") else verb[:-1] + "ies"
    )


def write_rows(path: Path, values: Iterable[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))


def write_benchmark(folder: Path) -> None:
    """Write the held-out problems in VerilogEval v2's layout into a new or empty folder."""
    numbered = enumerate(held_out(), start=1)
    verilog_eval.write(folder, (_posed(number, problem) for number, problem in numbered))


def _posed(number: int, problem: Problem) -> posed.Problem:
    """The problem as a benchmark states it."""
    task = f"Prob{number:03d}_{problem.name}"
    return posed.Problem(task, problem.prompt(), problem.code("RefModule"), problem.testbench())
