"""One file of rows behind https:// or http://, kept on this machine and fetched anew where it has changed.

Through the HTTP client that the other rooms use: fsspec would need a further package for it.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import httpx

from common.disk import SPARE, check_room, larger_disk
from common.errors import UserError
from common.files import PARTIAL, read_json, write_json
from common.progress import log
from data.config import KINDS, ending
from models.weights.fetch import first_line

_VERSION = ".version"
_TIMEOUT_S = 60.0


def from_http(url: str, kept: Path) -> str:
    """The file's place below `kept`. One request: the answer's headers say whether its body is wanted. Raises UserError
    for what is no file of rows, or cannot be fetched."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if not ending(name):
        raise UserError("no file of rows", where=url, fix=f"known endings: {', '.join(sorted(KINDS))}")
    final = kept / hashlib.sha256(url.encode()).hexdigest()[:16]
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=_TIMEOUT_S) as answer:
            answer.raise_for_status()
            if not _is_kept(final, answer):
                _keep(url, name, answer, final)
    except httpx.HTTPStatusError as error:
        what = f"the server answers {error.response.status_code} {error.response.reason_phrase}"
        raise UserError(what, where=url, fix="check the address") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        if not (final / _VERSION).is_file():
            fix = "check the address, or run the same command again"
            raise UserError(f"cannot be fetched: {first_line(error)}", where=url, fix=fix) from error
        log(f"{url} is not reached ({first_line(error)}); using the copy at {final}")
    return str(final / name)


def _version(answer: httpx.Response) -> dict[str, str]:
    return {key: answer.headers[key] for key in ("etag", "last-modified", "content-length") if key in answer.headers}


def _is_kept(final: Path, answer: httpx.Response) -> bool:
    """A length alone is no version."""
    stamp = _version(answer)
    known = "etag" in stamp or "last-modified" in stamp
    return known and (final / _VERSION).is_file() and read_json(final / _VERSION) == stamp


def _keep(url: str, name: str, answer: httpx.Response, final: Path) -> None:
    size = int(answer.headers.get("content-length", 0))
    check_room(final.parent, size, url, larger_disk("XDG_CACHE_HOME"), SPARE)
    log(f"{url}: fetching {size / 1e9:.2f} GB")
    final.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f"{final.name}-", suffix=PARTIAL, dir=final.parent))
    try:
        with open(beside / name, "wb") as file:
            file.writelines(answer.iter_bytes())
        write_json(beside / _VERSION, _version(answer))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(beside, final)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
