"""Rows that lie elsewhere: a split of a dataset on the Hub, or what is behind a URL, to a folder or file here.

`python -m data.sources.fetch JOB.json` prints the place of {"path", "split", "name", "revision"}, as JSON: what
the conductor starts.
The datasets library says which files a split is made of. They are kept as they are, at one commit: every row has its
file and line. Only a slice (train[:100]), or files of another kind, go through the library into Parquet.
"""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from datasets import load_dataset, load_dataset_builder
from datasets.exceptions import DatasetsError
from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError

from common.answer import answer
from common.disk import SPARE, cache_of, check_room, larger_disk
from common.errors import UserError
from common.files import PARTIAL, read_json, write_json
from common.progress import log
from data.config import KINDS, PACKED, TABLES, ending
from data.sources.remote import from_http
from models.weights.fetch import first_line, from_url

_DATASET = re.compile(r"(?:hf://datasets/)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?/?")
_FILE = re.compile(r"hf://datasets/(?P<repo>[^@]+)@(?P<revision>[^/]+)/(?P<path>.+)")
_SLICE = re.compile(r"[^\w.-]+")
PATTERNS = [f"*{kind}" for kind in sorted(KINDS)] + [
    f"*{kind}{more}" for kind in sorted(KINDS - TABLES) for more in PACKED
]
Files = list[tuple[str, str, str]]
"""Repository, revision and path of each file."""


def cache() -> Path:
    """Where fetched rows are kept."""
    return cache_of("rows")


def fetch(path: str, split: str | None = None, name: str | None = None, revision: str | None = None) -> str:
    """Where a source's rows are once they are here. Raises UserError where they cannot be fetched."""
    if path.startswith(("http://", "https://")):
        return from_http(path, cache())
    if "://" in path and not path.startswith("hf://"):
        return from_url(path, cache(), PATTERNS, "row")
    found = _DATASET.fullmatch(path)
    if found is None:
        fix = "write hf://datasets/OWNER/NAME; data.sources.files chooses among its files"
        raise UserError("not the name of a dataset", where=path, fix=fix)
    return _from_hub(found["repo"], split or "train", name, revision or found["revision"])


def _from_hub(repo: str, split: str, name: str | None, revision: str | None) -> str:
    kept, part = cache() / repo, f"{name or 'default'}/{_SLICE.sub('_', split)}"
    asked = kept / _SLICE.sub("_", f"{revision or 'main'}-{part}.json")
    try:
        about = HfApi().dataset_info(repo, revision=revision, files_metadata=True)
    except HfHubHTTPError as error:
        fix = "check the id and its revision; for a gated dataset, log in with: hf auth login"
        raise UserError(f"the Hub does not give this dataset: {first_line(error)}", where=repo, fix=fix) from error
    except Exception as error:  # of whichever HTTP client this version of the Hub's library uses
        folder = kept / read_json(asked)["folder"] if asked.is_file() else None
        if folder is None or not _is_whole(folder):
            what = f"no such file or folder, and no dataset of this name can be fetched ({first_line(error)})"
            fix = "check the path; or go online once, or copy the rows here and name their folder"
            raise UserError(what, where=repo, fix=fix) from error
        log(f"{repo}: the Hub is not reached; using the copy at {folder}")
        return str(folder)
    sha = about.sha or revision or "main"
    folder = kept / sha[:12] / part
    if not _is_whole(folder):
        _keep(repo, sha, name, split, {s.rfilename: s.size or 0 for s in about.siblings or []}, folder)
    asked.parent.mkdir(parents=True, exist_ok=True)
    write_json(asked, {"folder": str(folder.relative_to(kept))})
    return str(folder)


def _is_whole(folder: Path) -> bool:
    """Whether it is there, and so is what its links point at."""
    return folder.is_dir() and all(path.exists() for path in folder.rglob("*"))


def _keep(repo: str, sha: str, name: str | None, split: str, sizes: dict[str, int], folder: Path) -> None:
    """Fill `folder`, which is only there when it is whole."""
    files = _files(repo, sha, name, split)
    missing = [path for of, at, path in files if not _is_cached(of, at, path)]
    total = sum(sizes.get(path, 0) for path in missing)
    check_room(cache(), total, repo, larger_disk("HF_HOME"), SPARE)
    log(f"{repo} at {sha[:12]}: {len(files)} files, fetching {total / 1e9:.2f} GB")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", suffix=PARTIAL, dir=folder.parent))
    try:
        if "[" not in split and all(ending(path) for _, _, path in files):
            _link(files, beside)
        else:
            rows: Any = load_dataset(repo, name=name, split=split, revision=sha)
            rows.to_parquet(str(beside / "rows.parquet"))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(beside, folder)
    except Exception as error:  # as above
        fix = "run the same command again: what has come is kept"
        raise UserError(f"the rows cannot be fetched: {first_line(error)}", where=repo, fix=fix) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _is_cached(repo: str, revision: str, path: str) -> bool:
    return isinstance(try_to_load_from_cache(repo, path, revision=revision, repo_type="dataset"), str)


def _files(repo: str, sha: str, name: str | None, split: str) -> Files:
    """What a split, or the split that a slice is of, is made of."""
    try:
        config: Any = load_dataset_builder(repo, name=name, revision=sha).config
    except (ValueError, DatasetsError, OSError) as error:
        what, fix = " ".join(str(error).split()), "check its page, and data.sources.name"
        raise UserError(f"not a dataset of files of rows: {what}", where=repo, fix=fix) from error
    splits = {str(key): list(files) for key, files in (config.data_files or {}).items()}
    of = split.partition("[")[0]
    if of not in splits:
        raise UserError(f"no split {of!r}", where=repo, fix=f"data.sources.split: one of {', '.join(splits)}")
    found = [_FILE.fullmatch(url.rpartition("::")[2]) for url in splits[of]]
    return [(one["repo"], unquote(one["revision"]), unquote(one["path"])) for one in found if one is not None]


def _link(files: Files, folder: Path) -> None:
    """Into the Hub's own cache, by links."""
    for repo, revision, path in files:
        link = folder / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(hf_hub_download(repo, path, revision=revision, repo_type="dataset")).absolute())


if __name__ == "__main__":
    sys.exit(answer(lambda job: fetch(**job)))
