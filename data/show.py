"""Conversations as training will see them, for people and for tools: `python -m data.show JOB.json`.

JOB = {"config": {...DataConfig}, "inputs": {...DataInputs}, "count": N, "form": "colour" | "plain" | "json",
"html": FILE or null}. The first N rows that cleaning keeps, as the stage encodes them, before any is cut or packed.
json: one line a conversation, {"ids": [...], "mask": [0 or 1, ...], "text": "..."}, and nothing else.
"""

import html
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text
from transformers import PreTrainedTokenizerFast

from common.answer import answer
from common.errors import UserError
from common.files import write_text
from common.progress import log
from common.terminal import visible, visible_name
from data.clean import Tally, examples
from data.config import DataConfig, DataInputs
from data.encode import encoded, rendered
from models.text.prompt import Piece, load_tokenizer, pieces

_COLOURS = {(False, False): "dim", (True, False): "green", (False, True): "magenta", (True, True): "bold bright_green"}
"""(supervised, control token) -> how a terminal shows it."""
_OPEN, _CLOSE = "⟦", "⟧"
_LEGEND = f"{_OPEN}supervised{_CLOSE}, the rest is masked; ‹control token›"
_STYLE = """
:root { color-scheme: light dark; --soft: #767c84; --good: #1b7f45; --mark: #a33fa0; --line: #dfe1e4 }
@media (prefers-color-scheme: dark) { :root { --soft: #90969e; --good: #5fcf8d; --mark: #d98ad6; --line: #33373d } }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; font: 15px/1.5 system-ui, sans-serif }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, monospace; color: var(--soft) }
h2 { margin: 2rem 0 .25rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: 1rem }
.s { color: var(--good); background: color-mix(in srgb, var(--good) 12%, transparent) }
.c { font-weight: 600; outline: 1px solid currentColor; border-radius: 2px } .c:not(.s) { color: var(--mark) }
"""


@dataclass(frozen=True)
class Shown:
    """One conversation: where its row stands, its ids and mask, and its text in pieces."""

    where: str
    ids: np.ndarray
    mask: np.ndarray
    pieces: list[Piece]

    @property
    def title(self) -> str:
        return f"{visible_name(self.where)}: {len(self.ids)} tokens, {int(self.mask.sum())} supervised"


def _around(tokenizer: PreTrainedTokenizerFast, parts: list[Piece]) -> list[Piece]:
    """A document's pieces between the control tokens that begin and end it."""
    begin, end = (str(token) if token is not None else "" for token in (tokenizer.bos_token, tokenizer.eos_token))
    before = [Piece(begin, False, True)] if begin else []
    return [*before, *parts, *([Piece(end, True, True)] if end else [])]


def conversations(config: DataConfig, inputs: DataInputs, count: int) -> Iterator[Shown]:
    tokenizer = load_tokenizer(inputs.model, config.date)
    last_only = config.train_on == "last_turn"
    tally = Tally()
    chosen = islice(examples(config, tally), count)
    for example, (ids, mask) in encoded(config, tokenizer, chosen, tally):
        parts = pieces(tokenizer, rendered(tokenizer, example, last_only))
        yield Shown(example.where, ids, mask, parts if example.messages else _around(tokenizer, parts))
    left = [f"{name} ({count:,})" for name, count in sorted((tally.unused + tally.dropped).items())]
    if left:
        log(f"data: left out or unused: {', '.join(left)}")


def as_json(one: Shown) -> str:
    text = "".join(piece.text for piece in one.pieces)
    return json.dumps({"ids": one.ids.tolist(), "mask": one.mask.astype(int).tolist(), "text": text})


def as_plain(one: Shown) -> str:
    """Markers in place of colours."""
    said, open_ = [f"== {one.title}\n"], False
    for piece in one.pieces:
        if piece.supervised != open_:
            said.append(_OPEN if piece.supervised else _CLOSE)
            open_ = piece.supervised
        said.append(visible(f"‹{piece.text}›" if piece.control else piece.text))
    return "".join([*said, _CLOSE if open_ else ""])


def as_colour(one: Shown) -> Text:
    text = Text(f"== {one.title}\n", style="bold")
    for piece in one.pieces:
        text.append(visible(piece.text), style=f"not bold {_COLOURS[piece.supervised, piece.control]}")
    return text


def as_html(shown: list[Shown]) -> str:
    """A page that needs nothing but itself."""
    parts = [
        f"<!doctype html>\n<html lang='en'><meta charset='utf-8'><title>Conversations · tapeout</title>\n"
        f"<style>{_STYLE}</style>\n<p><code class='s'>supervised</code>, the rest is masked; "
        "<code class='c'>control token</code></p>"
    ]
    for one in shown:
        parts.append(f"<h2>{html.escape(one.title)}</h2>\n<pre>{''.join(map(_span, one.pieces))}</pre>")
    return "\n".join(parts) + "\n</html>\n"


def _span(piece: Piece) -> str:
    names = " ".join(name for name, on in (("s", piece.supervised), ("c", piece.control)) if on)
    text = html.escape(piece.text)
    return f'<span class="{names}">{text}</span>' if names else text


def show(job: dict[str, Any]) -> None:
    """Print the rows asked for as they are trained on. Raises UserError where none is left."""
    config, inputs = DataConfig.model_validate(job["config"]), DataInputs.model_validate(job["inputs"])
    found = list(conversations(config, inputs, job["count"]))
    if not found:
        raise UserError(
            "no row is left to show", where=", ".join(s.path for s in config.sources), fix="see tapeout data"
        )
    if job["html"] is not None:
        write_text(Path(job["html"]), as_html(found))
        log(f"written: {job['html']}")
        return
    if job["form"] == "colour":
        console = Console(force_terminal=True, highlight=False)
        for one in found:
            console.print(as_colour(one), soft_wrap=True)
        return
    if job["form"] == "plain":
        print(_LEGEND)
    for one in found:
        print(as_json(one) if job["form"] == "json" else as_plain(one))


if __name__ == "__main__":
    sys.exit(answer(show))
