"""What is part of a model: the files that our loaders read. A note that lies beside them is none.

Fingerprints of steps and the digest that an adapter carries of its base go over these.
"""

from pathlib import Path

from common.digests.known import Digests
from common.safetensors import INDEX, weight_files
from common.schema import Known

CONFIG = "config.json"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer.*.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)
"""What `PreTrainedTokenizerFast.from_pretrained` looks for."""
NOTE = "tapeout.json"
"""Of the day that the template was told when it trained: models/text/day."""
READ = (CONFIG, "generation_config.json", NOTE, *TOKENIZER)
"""What is read of a model besides its weights."""


def model_files(folder: Path, weights: bool = True) -> list[Path]:
    """Every file that is read of a model, sorted. Raises UserError for an index whose files are missing."""
    found = {path for pattern in READ for path in folder.glob(pattern) if path.is_file()}
    if weights:
        found.update(weight_files(folder))
        found.update(path for path in (folder / INDEX,) if path.is_file())
    return sorted(found)


def model_digest(folder: Path, digests: Digests, weights: bool = True) -> str:
    """Over all that is read of a model (`weights` False: without them). Raises UserError as `model_files` does."""
    return digests.of_files(model_files(folder, weights), folder)


def base_digest(folder: Path, known: Known | None = None) -> str:
    """Over config.json and the weights: what an adapter was trained on, whatever tokenizer lay beside them."""
    return Digests(known=known).of_files([folder / CONFIG, *weight_files(folder)], folder)
