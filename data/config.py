"""The recipe's `data` section, and what the stage reads."""

from typing import Literal

from pydantic import Field

from common.schema import InputPath, Section

VERSION = 1
"""Part of the fingerprint: raised when the same configuration would give other shards."""


class Source(Section):
    path: InputPath = Field(description="JSONL file (others follow)")
    format: Literal["codev-r1", "messages", "prompt-completion", "text"] = Field(
        default="codev-r1", description="How a row becomes a conversation; `text` is a document, every token supervised"
    )
    limit: int | None = Field(default=None, ge=1, description="Use at most this many rows")


class DataConfig(Section):
    """`data`: raw rows to token ids and loss masks."""

    sources: tuple[Source, ...] = Field(min_length=1)
    max_length: int = Field(default=512, ge=8, description="Tokens in a packed row; longer conversations are dropped")
    strip_reasoning: bool = Field(default=True, description="Drop <think>...</think>, keep the <answer>")
    packing: Literal["best-fit", "none"] = "best-fit"
    validation: float = Field(default=0.02, ge=0.0, lt=1.0, description="Share of rows kept apart for validation loss")
    seed: int = 0


class DataInputs(Section):
    model: str = Field(description="Folder with the tokenizer and its chat template")
