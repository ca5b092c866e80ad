"""Families: which module reads which `model_type`. A family is a config translation and a table, nothing else."""

from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_json
from models.families import gemma
from models.leaf import Leaf
from models.spec import DecoderSpec


def read_config(folder: str) -> dict[str, Any]:
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise UserError("no config.json here", where=str(path), fix="model.path must be a model in Hugging Face layout")
    try:
        return read_json(path)
    except ValueError as error:
        raise UserError(f"config.json is not JSON: {error}", where=str(path)) from None


def read_spec(folder: str) -> DecoderSpec:
    """The decoder that a folder's config.json describes; UserError where it is missing, unknown or incomplete."""
    config = read_config(folder)
    kind = config.get("model_type")
    try:
        if kind == "gemma4_text":
            return gemma.spec(config, "model.")
        if kind == "gemma4":
            return gemma.spec(config["text_config"], "model.language_model.")
    except KeyError as error:
        raise UserError(f"config.json lacks {error}", where=f"{folder}/config.json") from None
    raise UserError(
        f"model_type {kind!r} is not known", where=f"{folder}/config.json", fix="known: gemma4_text, gemma4 (dense)"
    )


def rows(spec: DecoderSpec, stacked: bool) -> list[Leaf]:
    return gemma.rows(spec, stacked)
