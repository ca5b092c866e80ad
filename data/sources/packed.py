"""The bytes of a file of rows, unpacked where it is compressed (gzip, bzip2, xz, zstd), whatever its name."""

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import pyarrow as pa

from common.errors import UserError


def _zstd(packed: BinaryIO) -> IO[bytes]:
    return io.BufferedReader(cast(Any, pa.CompressedInputStream(pa.PythonFile(packed), "zstd")))


_KINDS: dict[re.Pattern[bytes], Callable[[BinaryIO], Any]] = {
    re.compile(rb"\x1f\x8b"): gzip.open,
    re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"): bz2.open,
    re.compile(rb"\xfd7zXZ\x00"): lzma.open,
    re.compile(rb"\x28\xb5\x2f\xfd"): _zstd,
}
"""How each begins."""
_HEAD = 10


def existing(path: str) -> Path:
    """The file of rows at `path`. Raises UserError where there is none."""
    file = Path(path)
    if not file.is_file():
        raise UserError("no such file of rows", where=path, fix="give data.sources a local file, folder or glob")
    return file


def _unpacks(file: BinaryIO) -> Callable[[BinaryIO], Any] | None:
    head = file.read(_HEAD)
    file.seek(0)
    return next((unpack for begins, unpack in _KINDS.items() if begins.match(head)), None)


def is_packed(path: str) -> bool:
    with open(existing(path), "rb") as file:
        return _unpacks(file) is not None


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked as its ending says. Raises UserError for one that is damaged."""
    with open(existing(path), "rb") as file:
        unpack = _unpacks(file)
        if unpack is None:
            yield file
            return
        try:
            with unpack(file) as unpacked:
                yield unpacked
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            what = f"the file cannot be unpacked: {error}"
            raise UserError(what, where=path, fix="it may be cut short; fetch it again") from None
