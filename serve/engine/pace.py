"""How an engine works on a back end: what it runs in one program, and how much between two looks at the queue."""

from dataclasses import dataclass

FULL_PASS = 512
"""Tokens from which a product runs at the machine's rate, on CPU; fewer take an accelerator as long."""


@dataclass(frozen=True)
class Pace:
    """`steps` tokens for every sequence in one dispatch; prompts of at most `prefill_tokens` between two of them."""

    steps: int
    prefill_tokens: int
    any_rows: bool
    """Whether a row of a product is the same to the bit however many rows there are, so that the number of prompts in a
    program may be chosen by how many there are. Else it is always the same, and a prompt's numbers are."""
    most_tokens: int
    """Of all prompts in one program, unless one alone is longer."""

    def rows(self, bucket: int) -> tuple[int, ...]:
        """The numbers of prompts padded to `bucket` that there are programs for."""
        most = max(1, self.most_tokens // bucket)
        return (1, most) if self.any_rows and most > 1 else (most,)


def pace(platform: str, devices: int, max_length: int, steps: int | None) -> Pace:
    """On CPU a loop of steps costs more than as many dispatches, and a prompt costs what its tokens do; elsewhere a
    dispatch is dear and a few prompts are not. `steps`: as a recipe says."""
    if platform == "cpu":
        return Pace(steps or 1, FULL_PASS, any_rows=True, most_tokens=FULL_PASS)
    most = FULL_PASS if devices == 1 else 1
    return Pace(steps or 8, 2 * max_length, any_rows=False, most_tokens=most)
