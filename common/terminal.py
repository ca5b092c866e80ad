"""Untrusted text for a terminal: what would steer it, or hide or reorder what is read, is shown as its escape instead.

Completions, rows, tensor and file names come from strangers; an escape sequence in one may rewrite what stands on the
screen, set the clipboard or answer for the user.
"""

import re
import unicodedata

_SUSPECTS = re.compile("[^\\t\\n\x20-\x7e\xa0-\xac\xae-\u02ff]")
_JOINERS = "\u200c\u200d"
"""Zero-width joiners, which scripts and emoji need."""
_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Controls (C0, DEL, C1), format characters (bidi marks, zero-width ones), lone surrogates, separators."""


def _shown(match: re.Match[str]) -> str:
    sign = match.group()
    if sign in _JOINERS or unicodedata.category(sign) not in _STEERING:
        return sign
    code = ord(sign)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible(text: str) -> str:
    """The text with everything that is not to be read spelled out (`\\x1b`); line ends and tabs stay."""
    return _SUSPECTS.sub(_shown, text.replace("\r\n", "\n"))


def visible_name(text: str) -> str:
    """The same for a name, which has one line: a line end or tab in it is spelled out too."""
    return visible(text.replace("\r", "\\r")).replace("\n", "\\n").replace("\t", "\\t")
