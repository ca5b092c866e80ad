"""Models that lie elsewhere: a Hub id or a URL (gs://...) to a folder on this machine, fetched once.

`python -m models.weights.fetch JOB.json` prints the folder, as JSON: what the conductor, which imports no Hub client,
starts.

Room is asked for before the first byte: a disk that fills up half-way takes the machine with it.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import fsspec
from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from common.answer import answer
from common.disk import SPARE, cache_of, check_room, larger_disk
from common.errors import UserError
from common.files import PARTIAL, read_json, write_json
from common.progress import log

WANTED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
STAGING = "model.staging"
_LISTING = ".listing"
"""Hidden, and no file of rows: it lies among them."""
_STAMPS = ("ETag", "etag", "md5Hash", "generation", "mtime")
"""What file systems call a file's version."""


def fetch(path: str, revision: str | None = None, staging: str | None = None) -> str:
    """The folder that a model is in once it is here. Raises UserError where it cannot be fetched or does not fit.

    `staging` is where models are kept: by default Hugging Face's own cache, and ~/.cache/tapeout for URLs.
    """
    if "://" not in path:
        return _from_hub(path, revision, staging)
    kept = Path(staging).expanduser() if staging else cache_of("models")
    return from_url(path, kept, WANTED, "model")


def _from_hub(repo: str, revision: str | None, staging: str | None) -> str:
    cache = Path(staging or constants.HF_HUB_CACHE).expanduser()
    where: dict[str, Any] = {"repo_id": repo, "revision": revision, "cache_dir": cache}
    where |= {"allow_patterns": WANTED, "ignore_patterns": ["*/*"]}
    try:
        about = HfApi().model_info(repo, revision=revision, files_metadata=True)
    except HfHubHTTPError as error:
        first = str(error).strip().split("\n")[0]
        fix = "check the id and model.revision; for a gated model, log in with: hf auth login"
        raise UserError(f"the Hub does not give this model: {first}", where=repo, fix=fix) from error
    except Exception as error:  # of whichever HTTP client this version of the Hub's library uses
        try:
            found = snapshot_download(**where, local_files_only=True)
        except LocalEntryNotFoundError:
            what = f"no such folder, and no model of this name can be fetched ({first_line(error)})"
            fix = "check the path; or go online once, or copy the model here and name its folder"
            raise UserError(what, where=repo, fix=fix) from error
        log(f"{repo}: the Hub is not reached; using the copy at {found}")
        return found
    sha = about.sha or revision or "main"
    wanted = [
        s for s in about.siblings or [] if any(Path(s.rfilename).match(p) for p in WANTED) and "/" not in s.rfilename
    ]
    missing = [s for s in wanted if not isinstance(try_to_load_from_cache(repo, s.rfilename, cache, sha), str)]
    check_room(cache, sum(s.size or 0 for s in missing), repo, larger_disk(STAGING), SPARE)
    if missing:
        log(f"{repo} at {sha[:12]}: fetching {len(missing)} files, {sum(s.size or 0 for s in missing) / 1e9:.2f} GB")
    try:
        return snapshot_download(**where)
    except Exception as error:  # as above
        fix = "run the same command again: what has come is kept"
        raise UserError(f"the download stopped: {first_line(error)}", where=repo, fix=fix) from error


def first_line(error: BaseException) -> str:
    """What an error of another library says first."""
    return (str(error).strip() or type(error).__name__).split("\n")[0]


def from_url(url: str, kept: Path, wanted: list[str], kind: str) -> str:
    """A file, or a folder's files whose names match `wanted`, kept below `kept`; fetched anew where one has changed.

    Raises UserError where there is none, where it cannot be fetched or does not fit.
    """
    final = kept / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    try:
        system, root = fsspec.url_to_fs(url.rstrip("/"))
        single = system.isfile(root)
        listing = _listed(system, root, wanted)
    except ImportError as error:
        scheme = url.split("://")[0]
        raise UserError(
            f"{scheme}:// cannot be read here: {error}", where=url, fix='pip install "tapeout[gcs]"'
        ) from None
    except (OSError, ValueError) as error:
        if (final / _LISTING).is_file():
            log(f"{url} is not reached ({first_line(error)}); using the copy at {final}")
            return _found(final)
        fix = "check the address and your credentials (gcloud auth application-default login)"
        raise UserError(f"cannot be listed: {first_line(error)}", where=url, fix=fix) from error
    if not listing:
        raise UserError(f"no {kind} files here", where=url, fix=f"what is looked for: {', '.join(wanted)}")
    if (final / _LISTING).is_file() and read_json(final / _LISTING) == listing:
        return _found(final)
    size = sum(about["size"] for about in listing.values())
    check_room(kept, size, url, larger_disk(STAGING), SPARE)
    log(f"{url}: fetching {len(listing)} files, {size / 1e9:.2f} GB")
    kept.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f"{final.name}-", suffix=PARTIAL, dir=kept))
    try:
        for name in listing:
            system.get_file(root if single else f"{root}/{name}", str(beside / name))
        write_json(beside / _LISTING, listing)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(beside, final)
    except OSError as error:
        raise UserError(
            f"cannot be fetched: {first_line(error)}", where=url, fix="run the same command again"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return _found(final)


def _found(folder: Path) -> str:
    """The folder, or the one file that the URL was of."""
    listing = read_json(folder / _LISTING)
    return str(folder / next(iter(listing))) if any(about.get("single") for about in listing.values()) else str(folder)


def _listed(system: Any, root: str, wanted: list[str]) -> dict[str, dict[str, Any]]:
    """Size and version of every wanted file in the folder, or of the one file that `root` is."""
    found: dict[str, dict[str, Any]] = {}
    single = system.isfile(root)
    for about in [system.info(root)] if single else system.ls(root, detail=True):
        name = about["name"].rsplit("/", 1)[-1]
        if about["type"] == "file" and any(Path(name).match(pattern) for pattern in wanted):
            stamp = next((about[key] for key in _STAMPS if about.get(key)), "")
            found[name] = {"size": about["size"] or 0, "version": str(stamp)} | ({"single": True} if single else {})
    return dict(sorted(found.items()))


if __name__ == "__main__":
    sys.exit(answer(lambda job: fetch(**job)))
