"""The words a problem is put in: its prompt file alone, or the benchmark's own official prompt with 0 to 4 examples.

The official texts are read out of the checkout (scripts/sv-generate and the example files beside it), so that they are
those of the revision that is scored; the script is parsed for its constants and never run.
"""

import ast
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from common.benchmark.folder import DATASETS, Folder
from common.benchmark.problems import Benchmark, Problem
from common.errors import UserError
from eval.config import EvalConfig

SCRIPTS, GENERATOR = "../scripts", "sv-generate"
"""As they lie beside a dataset's folder."""
TASKS = ("spec-to-rtl", "code-complete-iccad2023")
Message = dict[str, str]
_NO_EXPLAIN = "prompt_no_explain_suffix"


def plain(problem: Problem) -> list[Message]:
    """The prompt file, word for word, as the user's one turn."""
    return [{"role": "user", "content": problem.prompt}]


@dataclass(frozen=True)
class Official:
    """One task's texts: the system turn, what stands before every prompt, what after, and the examples."""

    task: str
    system: str
    prefix: str
    suffix: str
    examples: str

    def __call__(self, problem: Problem) -> list[Message]:
        word = _question if self.task == TASKS[0] else _continuation
        return [
            {"role": "system", "content": self.system},
            {"role": "user", "content": self.examples + word(self, problem)},
        ]


def _question(texts: Official, problem: Problem) -> str:
    asked = f"\nQuestion:\n{problem.prompt.strip()}\n"
    return f"{asked.rstrip()}\n{texts.suffix}\nAnswer:\n"


def _continuation(texts: Official, problem: Problem) -> str:
    """The description as comments, then an empty line and the module's header."""
    lines, described = [], True
    for line in problem.prompt.splitlines():
        if "module TopModule" in line:
            lines.append("")
            described = False
        lines.append(f"// {line}" if described else line)
    return texts.prefix + "\n".join(lines)


def _syntax(folder: Folder, script: str) -> list[ast.stmt]:
    why = "it is absent"
    text = folder.text(script)
    try:
        if text is not None:
            return ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = str(error)
    raise UserError(
        f"the official prompts cannot be read: {why}",
        where=str(folder.path / script),
        fix="point eval.benchmark at a whole checkout of NVlabs/verilog-eval, or write prompts: plain",
    )


def _constants(body: list[ast.stmt]) -> dict[str, object]:
    """Assignments of literals in a script: `name` for `name = ...`, `name[key]` for `name['key'] = ...`."""
    found: dict[str, object] = {}
    for node in body:
        if not isinstance(node, ast.Assign):
            continue
        target = node.targets[0]
        if isinstance(target, ast.Name):
            name = target.id
        elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
            key = target.slice
            name = f"{target.value.id}[{key.value}]" if isinstance(key, ast.Constant) else ""
        else:
            continue
        try:
            found[name] = ast.literal_eval(node.value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):  # no literal
            continue
    return found


def _examples(folder: Folder, task: str, count: int) -> str:
    if count == 0:
        return ""
    name = f"{SCRIPTS}/verilog-example-prefix_{task}_{count}-shot.txt"
    text = folder.text(name)
    if text is None:
        raise UserError(
            f"this checkout has no file of {count} in-context examples for {task}",
            where=str(folder.path / name),
            fix="choose eval.examples as the checkout has them, or check out the whole repository",
        )
    return text


def official(folder: Folder, examples: int) -> Official:
    """The official texts for the dataset in `folder`, which lies in a checkout; UserError where it does not."""
    task = folder.name.removeprefix(DATASETS)
    if task not in TASKS:
        raise UserError(
            f"there are official prompts for {' and '.join(TASKS)}; this dataset is {folder.name}",
            where="eval.prompts",
            fix="write prompts: plain",
        )
    script = f"{SCRIPTS}/{GENERATOR}"
    known = _constants(_syntax(folder, script))
    texts, suffix = known.get(f"prompts[{task}]"), known.get(_NO_EXPLAIN)
    if not isinstance(texts, dict) or not isinstance(suffix, str) or not {"system_msg", "prompt_prefix"} <= set(texts):
        raise UserError(
            f"no texts for {task} in this script (prompts[...], {_NO_EXPLAIN})",
            where=str(folder.path / script),
            fix="pin a revision of verilog-eval v2 (eval.revision), or write prompts: plain",
        )
    return Official(task, texts["system_msg"], texts["prompt_prefix"], suffix, _examples(folder, task, examples))


def wording(config: EvalConfig, folder: Folder) -> Callable[[Problem], list[Message]]:
    """How the configuration wants a problem put to the model."""
    return plain if config.prompts == "plain" else official(folder, config.examples)


def digest(benchmark: Benchmark, word: Callable[[Problem], list[Message]]) -> str:
    """Of every message that a run of this benchmark sends."""
    return hashlib.sha256("".join(repr(word(problem)) for problem in benchmark.problems).encode()).hexdigest()
