"""Families: which module reads which `model_type`. A family is a config translation over one table, nothing else."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_json
from common.safetensors import read_weights
from models.families import gemma3, gemma4, llama
from models.families.reading import check, check_types
from models.families.table import rows
from models.spec import DecoderSpec

__all__ = ["carried", "read_config", "read_spec", "rows", "spec_of"]

TEXT: dict[str, Callable[[Mapping[str, Any], str], DecoderSpec]] = {
    "gemma3_text": gemma3.spec,
    "gemma4_text": gemma4.spec,
    "llama": llama.llama,
    "qwen3": llama.qwen3,
}
MULTIMODAL: dict[str, Callable[[Mapping[str, Any], str, tuple[str, ...]], DecoderSpec]] = {
    "gemma3": gemma3.spec,
    "gemma4": gemma4.spec,
}
PREFIXES = ("model.language_model.", "language_model.model.")
"""Of the text part of a multimodal checkpoint; the second is the older spelling."""
SENSES = ("vision_tower.", "audio_tower.", "embed_vision.", "embed_audio.", "multi_modal_projector.")


def read_config(folder: str) -> dict[str, Any]:
    """config.json as it is. Raises UserError where there is none, or it is no JSON object."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise UserError("no config.json here", where=str(path), fix="model.path must be a model in Hugging Face layout")
    try:
        config = read_json(path)
    except ValueError as error:
        raise UserError(f"config.json is not JSON: {error}", where=str(path)) from None
    if not isinstance(config, dict):
        raise UserError("config.json is not a JSON object", where=str(path))
    return config


def read_spec(folder: str) -> DecoderSpec:
    """The decoder that a folder's config.json describes; UserError where it is missing, unknown or incomplete."""
    return spec_of(read_config(folder), folder, lambda: read_weights(Path(folder)).where)


def spec_of(config: Mapping[str, Any], folder: str, tensors: Callable[[], Iterable[str]]) -> DecoderSpec:
    """`read_spec` of a config.json that is read already; `tensors` are asked for where their names matter. Raises
    UserError naming the key that is missing, unknown or cannot be."""
    kind = config.get("model_type")
    try:
        if isinstance(kind, str) and kind in TEXT:
            check_types(config)
            return check(TEXT[kind](config, "model."))
        if isinstance(kind, str) and kind in MULTIMODAL:
            text = config["text_config"]
            if not isinstance(text, dict):
                raise UserError("text_config must be an object", where=f"{folder}/config.json")
            text = {"tie_word_embeddings": config.get("tie_word_embeddings", True), **text}
            check_types(text)
            carried = tuple(f"{start}{sense}" for start in ("model.", "") for sense in SENSES)
            return check(MULTIMODAL[kind](text, _prefix(tensors()), carried))
    except KeyError as error:
        raise UserError(f"config.json lacks {error}", where=f"{folder}/config.json") from None
    except (TypeError, IndexError) as error:
        # A key that a family needs is null, mostly: values that are there have the right type by now.
        raise UserError(f"config.json has a value that cannot be: {error}", where=f"{folder}/config.json") from error
    known = ", ".join(sorted([*TEXT, *MULTIMODAL]))
    raise UserError(f"model_type {kind!r} is not known", where=f"{folder}/config.json", fix=f"known: {known}")


def carried(spec: DecoderSpec, name: str) -> bool:
    """Whether a tensor that no row reads belongs there all the same: copies of the model keep it as it is."""
    return name.startswith(spec.carried) or (spec.tied and name.endswith("lm_head.weight"))


def _prefix(tensors: Iterable[str]) -> str:
    """How a checkpoint spells the text part; the newer spelling where there are no weights."""
    names = list(tensors)
    return next((p for p in PREFIXES if any(name.startswith(p) for name in names)), PREFIXES[0])
