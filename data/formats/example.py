"""A row once it is read: a conversation, or a plain document."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from data.sources.json_rows import BadRow
from models.text.template import Message


class Dropped(Exception):
    """Leave the row out; the first argument is the reason it is counted under."""


@dataclass(frozen=True)
class Example:
    """One row, cleaned: `messages` of a conversation or `text` of a document; `group` keeps to one side of a split.

    `tools` are those that the conversation may call; `unfolded` are the messages before system turns were folded away,
    where they were.
    """

    where: str
    messages: tuple[Message, ...] = ()
    text: str = ""
    group: str = ""
    unfolded: tuple[Message, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def content(self) -> str:
        """All that is said, in its order."""
        return self.text or "\n".join(message["content"] for message in self.messages)

    @property
    def rich(self) -> bool:
        """Whether more than roles and contents is said."""
        return bool(self.tools) or any(len(one) > 2 or one["role"] == "tool" for one in self.messages)

    @cached_property
    def digest(self) -> bytes:
        """Of the content alone, the same wherever the row stands."""
        total = hashlib.blake2b(digest_size=16)
        parts = [self.text, *(part for m in self.messages for part in (m["role"], m["content"]))]
        try:
            if self.rich:
                parts.append(json.dumps([self.messages, self.tools], ensure_ascii=False, sort_keys=True))
            for part in parts:
                encoded = part.encode()
                total.update(len(encoded).to_bytes(8, "little") + encoded)
        except UnicodeEncodeError:
            raise BadRow("half of a surrogate pair in the text", where=self.where, fix="mend the row") from None
        except TypeError as error:
            what = f"its tools or calls hold what JSON cannot: {error}"
            raise BadRow(what, where=self.where, fix="write texts, numbers, lists and objects") from None
        return total.digest()
