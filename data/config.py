"""The recipe's `data` section, and what the stage reads."""

import re
from pathlib import Path, PurePath
from typing import Any, Literal

from pydantic import Field, model_validator

from common.errors import UserError
from common.schema import Day, InputPath, Place, Section

VERSION = 2
"""Part of the fingerprint: raised when the same configuration would give other shards."""
TABLES = frozenset({".parquet", ".arrow", ".feather"})
KINDS = frozenset({".jsonl", ".json", ".ndjson", ".csv"}) | TABLES
"""Endings of files of rows; all but tables may be compressed, with one of `PACKED` after it."""
PACKED = (".gz", ".bz2", ".xz", ".zst")
OTHERS = frozenset({".zip", ".7z", ".rar", ".lz4", ".br", ".z", ".zstd", ".lzma", ".snappy"})


def ending(path: str | PurePath) -> str:
    """Of a file of rows: the kind that it is once it is unpacked; "" where it is of none."""
    name = PurePath(path)
    kind = name.suffix.lower()
    if kind in PACKED:
        kind = PurePath(name.stem).suffix.lower()
        return kind if kind in KINDS - TABLES else ""
    return kind if kind in KINDS else ""


_WILD = re.compile(r"[*?\[]")


class Source(Section):
    path: InputPath = Field(
        description="JSONL, Parquet, CSV or Arrow file, a folder or glob of them, a Hub dataset's id, or a URL (gs://...)"
    )
    name: str | None = Field(default=None, description="Of a Hub dataset: its configuration")
    split: str | None = Field(default=None, description="Of a Hub dataset: train unless given; train[:1000] works too")
    revision: str | None = Field(default=None, description="Of a Hub dataset: branch, tag or commit")
    files: str = Field(default="", description="Of a folder: only the files whose path in it matches, e.g. a/*.jsonl")
    format: Literal["codev-r1", "messages", "prompt-completion", "alpaca", "sharegpt", "text", "auto"] = Field(
        default="auto",
        description="How a row becomes a conversation; text: a document, every token supervised; auto: by its columns",
    )
    limit: int | None = Field(default=None, ge=1, description="Use at most this many rows")
    columns: dict[str, str] = Field(
        default={}, description="Where rows name a column otherwise: the format's name to theirs, e.g. prompt: question"
    )
    weight: float | None = Field(
        default=None, gt=0, description="Share in a mixture (all sources or none), until one of them runs out"
    )
    shuffle: int | None = Field(default=None, description="Seed to shuffle the rows with, in a window of 10,000")

    @model_validator(mode="before")
    @classmethod
    def _glob(cls, value: Any) -> Any:
        """A glob becomes its fixed folder, whose content is fingerprinted, and the pattern within."""
        path = value.get("path") if isinstance(value, dict) else None
        if not isinstance(path, str) or "://" in path or value.get("files") or not _WILD.search(path):
            return value
        parts = path.split("/")
        first = next(i for i, part in enumerate(parts) if _WILD.search(part))
        return value | {"path": "/".join(parts[:first]) or ("/" if first else "."), "files": "/".join(parts[first:])}


def listed(source: Source) -> list[Path]:
    """The files of rows that a source's folder has, by their names; what they hold may narrow them down further.

    Raises UserError for rows that cannot be read: they would be left out unsaid.
    """
    wanted, root = source.files or "**/*", Path(source.path)
    seen = [path for path in root.glob(wanted) if _is_hidden(wanted) or not _is_hidden(str(path.relative_to(root)))]
    return sorted(path for path in seen if _holds_rows(path))


def _is_hidden(name: str) -> bool:
    """What other tools leave beside the rows, a second copy of them perhaps (.ipynb_checkpoints, ._rows.jsonl)."""
    return any(part.startswith(".") for part in name.split("/"))


def _holds_rows(path: Path) -> bool:
    if path.is_symlink() and not path.exists() and ending(path):
        raise UserError("a link that leads to nothing", where=str(path), fix="fetch its file again, or remove the link")
    if path.suffix.lower() in OTHERS and ending(path.stem) and path.is_file():
        fix = f"unpack it, or compress it otherwise ({', '.join(PACKED)}); or choose others: data.sources.files"
        raise UserError(f"a file of rows in {path.suffix}, which is not read", where=str(path), fix=fix)
    return bool(ending(path)) and path.is_file()


class DataConfig(Section):
    """`data`: raw rows to token ids and loss masks."""

    sources: tuple[Source, ...] = Field(min_length=1)
    max_length: int = Field(default=512, ge=8, description="Tokens in a packed row")
    overflow: Literal["drop", "error", "window"] = Field(
        default="drop", description="Rows longer than max_length; window: cut between whole turns or modules"
    )
    strip_reasoning: bool = Field(default=True, description="Drop <think>...</think>, keep the <answer>")
    answer: Literal["whole", "code"] = Field(default="whole", description="code: keep the first Verilog fence alone")
    train_on: Literal["all_assistant_turns", "last_turn"] = "all_assistant_turns"
    system: Literal["error", "fold"] = Field(
        default="error", description="Where the template drops system turns; fold: into the user turn that follows"
    )
    bad_rows: Literal["error", "drop"] = Field(default="error", description="Rows that cannot be read as their format")
    unused: Literal["error", "ignore"] | tuple[str, ...] = Field(
        default="error",
        description="What cannot be used and would change what is learnt (a tool call, a loss mask); or a list of "
        "columns and keys to leave aside, e.g. [tools, weight]. What has no such meaning is counted",
    )
    duplicates: Literal["keep", "drop"] = Field(default="keep", description="Rows equal to an earlier one")
    date: Day = Field(
        default="2024-07-26",
        description="The day that a chat template is told it is, here and by the server of what is trained",
    )
    empty_mask: Literal["error", "drop"] = Field(default="error", description="Rows with nothing to learn from")
    near_duplicates: float | None = Field(
        default=None, ge=0.5, le=1.0, description="Drop rows this similar to an earlier one (Jaccard), e.g. 0.8"
    )
    compile_check: Literal["off", "drop", "error"] = Field(
        default="off", description="Rows whose Verilog slang cannot compile, or that have none"
    )
    benchmark: InputPath | None = Field(
        default=None,
        description="Folder in VerilogEval's layout to compare every row with; in a recipe, eval's unless given",
    )
    contamination: Literal["off", "warn", "drop", "error"] = Field(
        default="warn", description="Rows that resemble a problem of the benchmark"
    )
    contamination_limit: float = Field(
        default=0.8, gt=0.0, le=1.0, description="From which similarity on a row counts as a copy of a problem"
    )
    packing: Literal["best-fit", "none"] = Field(default="best-fit", description="none: one conversation a row")
    validation: float = Field(default=0.02, ge=0.0, lt=1.0, description="Share of rows kept apart for validation loss")
    validation_group: str | None = Field(default=None, description="Column whose equal values stay on one side")
    seed: int = 0

    @model_validator(mode="after")
    def _weights(self) -> "DataConfig":
        if len({source.weight is None for source in self.sources}) > 1:
            raise ValueError("give every source a weight, or none")
        return self


class DataInputs(Section):
    model: Place = Field(description="Folder with the tokenizer and its chat template")
