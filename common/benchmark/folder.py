"""The folder of a benchmark, and the one way its files are read.

Others wrote these files, and what they say is sent to a server: a link that leaves the checkout or leads to what is
hidden in it (.git, .env), a device, a pipe and a file beyond all measure are refused by name, and not read.
"""

import hashlib
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from common.disk import cache_of
from common.errors import UserError

DATASETS = "dataset_"
"""How the folders of a checkout begin that hold its problems."""
LARGEST = 4 << 20
"""Bytes; the largest testbench of VerilogEval v2 has some 10,000."""
_GIT = ".git"


def is_url(benchmark: str) -> bool:
    return "://" in benchmark or benchmark.startswith("git@")


def kept_checkout(url: str, revision: str) -> Path:
    """Where a repository's revision is kept once it was fetched."""
    return cache_of("benchmarks") / hashlib.sha256(f"{url}\0{revision}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Folder:
    """`path` holds the problems; nothing outside of `checkout` is read for them."""

    checkout: Path
    path: Path

    @cached_property
    def name(self) -> str:
        return self.path.resolve().name

    def names(self) -> list[str]:
        """The visible entries, sorted; UserError where the folder is missing, is none, or lies outside."""
        inside = self._inside(self.path)
        if inside is None or not inside.is_dir():
            raise UserError(
                "no such benchmark folder", where=str(self.path), fix="name a folder of ProbNNN_*_prompt.txt files"
            )
        return sorted(entry.name for entry in inside.iterdir() if not entry.name.startswith("."))

    def datasets(self) -> list[str]:
        """The names of folders in it that can hold problems, for what an error suggests."""
        return [name for name in self.names() if name.startswith(DATASETS) and (self.path / name).is_dir()]

    def text(self, name: str) -> str | None:
        """What the file `name` says; None where it is absent. UserError where it is not a text file of the checkout."""
        path = self.path / name
        inside = self._inside(path)
        if inside is None:
            return None
        try:
            return _content(inside, path).decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"not UTF-8 text ({error.reason})", where=str(path), fix="restore the file") from None
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror}", where=str(path), fix="restore the file") from None

    def check_links(self) -> None:
        """No visible link below it leaves the checkout: who reads the whole folder, for its digest, stays inside."""
        for top, folders, files in os.walk(self.path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in (*folders, *files):
                if not name.startswith(".") and os.path.islink(os.path.join(top, name)):
                    self._inside(Path(top, name))

    def _inside(self, path: Path) -> Path | None:
        """`path` with every link followed; None where nothing is there, UserError where that is outside."""
        try:
            real = path.resolve(strict=True)
        except (FileNotFoundError, NotADirectoryError):
            if path.is_symlink():
                raise _refused("a symbolic link that leads to nothing", path) from None
            return None
        except (OSError, RuntimeError):  # RuntimeError: links in a circle, in Python 3.11 and 3.12
            raise _refused("symbolic links that cannot be followed", path) from None
        checkout = self.checkout.resolve()
        if not real.is_relative_to(checkout):
            raise _refused(f"a symbolic link that leaves the checkout, to {real}", path)
        if hidden := [part for part in real.relative_to(checkout).parts if part.startswith(".")]:
            raise _refused(f"a way into what is hidden in the checkout ({hidden[0]})", path)
        return real


def _refused(what: str, path: Path) -> UserError:
    return UserError(
        f"{what}: what a benchmark's files lead to is not read",
        where=str(path),
        fix="put the file itself there, if you trust where the benchmark comes from",
    )


def _content(path: Path, named: Path) -> bytes:
    """The bytes of a regular file; OSError, or UserError for anything else than one of bearable size."""
    if not stat.S_ISREG(path.stat().st_mode):  # before it is opened: opening a device can have effects
        raise UserError("not a regular file", where=str(named), fix="put a text file there")
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UserError("not a regular file", where=str(named), fix="put a text file there")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise UserError(f"more than {LARGEST >> 20} MiB", where=str(named), fix="a problem's file is smaller")
    return content


def benchmark_folder(benchmark: str, dataset: str | None = None, revision: str | None = None) -> Folder:
    """Where the problems lie on this machine: a folder, one in a checkout, or one in a fetched repository's checkout.

    The checkout is the repository's, or the named folder; or, for a `dataset_*` folder named by itself, the checkout
    around it. A path that the user names may be a link; what lies below may not lead out. Raises UserError for a
    `dataset` outside the checkout.
    """
    named = kept_checkout(benchmark, revision or "") if is_url(benchmark) else Path(benchmark).expanduser().absolute()
    if dataset:
        if Path(dataset).is_absolute() or ".." in Path(dataset).parts:
            raise UserError(
                f"not a folder within the checkout: {dataset}", where="eval.dataset", fix="name one, e.g. dataset_x"
            )
        return Folder(named, named / dataset)
    if named.name.startswith(DATASETS) and (named.parent / _GIT).exists():
        return Folder(named.parent, named)
    real = named.resolve()
    around = any((real.parent / mark).exists() for mark in (_GIT, "scripts/sv-generate"))
    return Folder(real.parent if real.name.startswith(DATASETS) and around else real, named)
