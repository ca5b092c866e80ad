"""A benchmark's problems, whatever files they were read from."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from common.errors import UserError


@dataclass(frozen=True)
class Problem:
    """One task: its prompt, the reference design, the testbench; `interface` is the header a completion continues."""

    task_id: str
    prompt: str
    reference: str
    test: str
    interface: str = ""

    @cached_property
    def digest(self) -> str:
        """sha256 over the parts, each after its length."""
        total = hashlib.sha256()
        for part in (self.task_id, self.prompt, self.reference, self.test, self.interface):
            total.update(f"{len(part)}\0{part}".encode())
        return total.hexdigest()


@dataclass(frozen=True)
class Benchmark:
    """Problems in order of their task id."""

    name: str
    problems: tuple[Problem, ...]

    @cached_property
    def digest(self) -> str:
        """sha256 over the problems' digests: of what they say, not of where they lie."""
        return hashlib.sha256("".join(p.digest for p in self.problems).encode()).hexdigest()

    @cached_property
    def by_id(self) -> dict[str, Problem]:
        return {p.task_id: p for p in self.problems}

    def called(self, name: str) -> Problem:
        """The problem of that task id, or of its first word (`Prob031`); UserError where there is none, or several."""
        found = [task for task in self.by_id if name in (task, task.split("_")[0])]
        if len(found) != 1:
            near = ", ".join(sorted(self.by_id)[:3])
            raise UserError(f"no such problem in {self.name}", where=name, fix=f"name one of its tasks: {near}, ...")
        return self.by_id[found[0]]
