"""Which files of the base the merged model gets besides its weights: those that belong to a model, and no others.

A folder that people work in holds notes, scripts, other weights, adapters and results, too: a loader would trip over
some, and none is of the merged model. What is left behind is named in the certificate.
"""

from fnmatch import fnmatch
from pathlib import Path

from common.digests.model import model_files
from common.safetensors import INDEX

OF_OTHERS = (
    *("*processor_config.json", "chat_template.json", "vocab.json", "merges.txt", "vocab.txt", "params.json"),
    *("tekken.json", "*.tiktoken", "spiece.model", "sentencepiece*.model"),
    *(f"{kind}_*.py" for kind in ("configuration", "modeling", "processing", "tokenization", "image_processing")),
)
"""What other loaders read of a model: images and sound, slow tokenizers, code that its configuration names."""
OF_PEOPLE = ("licen[cs]e*", "notice*", "*use_policy*", "*use-policy*", "readme.md")
"""Under which terms its weights may be passed on, and whose they are. Small or capital letters."""


def carried_files(folder: Path, weights: set[str]) -> tuple[list[str], list[str]]:
    """Names of the files below `folder` to carry through, and of what lies beside them and is left out (`name/` for a
    folder). `weights` are neither; hidden files are not looked at."""
    read = {path.relative_to(folder).as_posix() for path in model_files(folder, weights=False)}
    there = {path.name: path for path in folder.iterdir() if not path.name.startswith(".")}
    others = {name for name, path in there.items() if path.is_file() and _is_of_others(name)}
    carried = sorted((read | others) - weights)
    accounted = {name.split("/")[0] for name in carried} | weights
    left_out = sorted(f"{name}/" if there[name].is_dir() else name for name in there if name not in accounted)
    return carried, left_out


def _is_of_others(name: str) -> bool:
    people = any(fnmatch(name.lower(), pattern) for pattern in OF_PEOPLE)
    return name == INDEX or people or any(fnmatch(name, pattern) for pattern in OF_OTHERS)
