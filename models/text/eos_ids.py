"""Which tokens end a completion: all that the model's files name, and the one that closes a turn in its template."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from common.files import read_json
from models.text.prompt import encode


def eos_ids(folder: str, tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """Token ids from generation_config.json, config.json, the tokenizer and its chat template; at least one. Raises
    UserError where none of them says one."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        path = Path(folder) / name
        if path.is_file():
            content = read_json(path)
            found |= _listed(content) | _listed(content.get("text_config") or {})
    if isinstance(tokenizer.eos_token_id, int):
        found.add(tokenizer.eos_token_id)
    if tokenizer.chat_template:
        found |= _turn_end(tokenizer)
    if not found:
        raise UserError(
            "nothing says which token ends a completion",
            where=f"{folder}/generation_config.json",
            fix="add eos_token_id there",
        )
    return frozenset(found)


def _listed(config: dict[str, Any]) -> set[int]:
    value = config.get("eos_token_id")
    return {value} if isinstance(value, int) else set(value or ())


def _turn_end(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """The special token that the template writes after an answer."""
    encoded = encode(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    special = set(tokenizer.all_special_ids)
    answer = [i for i, supervised in zip(encoded.ids, encoded.mask, strict=True) if supervised]
    return set(answer[-1:]) & special
