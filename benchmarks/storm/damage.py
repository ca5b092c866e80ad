"""Twelve ways in which files go bad, each on a file drawn by chance from all that an attempt left."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

Do = Callable[[random.Random, Path, Path], None]


def _write(path: Path, change: Callable[[bytearray], None]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(bytes(content))


def _flip(chance: random.Random, path: Path, _root: Path) -> None:
    def change(content: bytearray) -> None:
        if content:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)

    _write(path, change)


def _eight(chance: random.Random, path: Path, _root: Path) -> None:
    def change(content: bytearray) -> None:
        for _ in range(8 if content else 0):
            content[chance.randrange(len(content))] ^= 1 + chance.randrange(255)

    _write(path, change)


def _digit(chance: random.Random, path: Path, root: Path) -> None:
    """Text that stays well-formed: another digit."""

    def change(content: bytearray) -> None:
        digits = [i for i, byte in enumerate(content) if 48 <= byte <= 57]
        if digits:
            at = chance.choice(digits)
            content[at] = 48 + (content[at] - 48 + chance.randrange(1, 9)) % 10

    _write(path, change)


def _truncate(chance: random.Random, path: Path, _root: Path) -> None:
    os.truncate(path, chance.randrange(max(1, path.stat().st_size)))


def _empty(_chance: random.Random, path: Path, _root: Path) -> None:
    path.write_bytes(b"")


def _remove(_chance: random.Random, path: Path, _root: Path) -> None:
    path.unlink()


def _type(chance: random.Random, path: Path, root: Path) -> None:
    """JSON of another type than the one that is looked for."""
    whole = [p for p in root.rglob("*.json*") if p.is_file()] or [path]
    path = chance.choice(whole)
    wrong = chance.choice(["[]", "3", "null", '"text"', "{}", '{"fingerprint": 3}', "[" * 3000])
    try:
        value = json.loads(path.read_text())
        key = chance.choice(sorted(value))
        value[key] = chance.choice([None, 3, [], {}, "x", True])
        path.write_text(chance.choice([wrong, json.dumps(value)]))
    except (ValueError, TypeError, IndexError):
        path.write_text(wrong + "\n")


def _foreign(chance: random.Random, path: Path, _root: Path) -> None:
    name = chance.choice(["NOTES.txt", "00009.array_record", "x.safetensors", ".DS_Store", "99", "copy-" + path.name])
    if not (path.parent / name).exists():
        (path.parent / name).write_bytes(path.read_bytes() if chance.random() < 0.5 else b"not ours\n")


def _link(chance: random.Random, path: Path, _root: Path) -> None:
    target = chance.choice(["/dev/null", "nowhere", path.name, "/etc/hostname"])
    path.unlink()
    path.symlink_to(target)


def _folder(_chance: random.Random, path: Path, _root: Path) -> None:
    path.unlink()
    path.mkdir()


def _swap(chance: random.Random, path: Path, root: Path) -> None:
    """The bytes of another file."""
    others = [p for p in root.rglob("*") if p.is_file() and p != path]
    if others:
        path.write_bytes(chance.choice(others).read_bytes())


def _stale(chance: random.Random, path: Path, root: Path) -> None:
    """Locks and partial files of processes that are gone."""
    kind = chance.randrange(4)
    if kind == 0:
        (root / ".lock").write_text("4242")
    elif kind == 1:
        for lock in (".lock", "storm/.lock", ".train.lock", ".convert.lock"):
            if (root / lock).parent.is_dir() and not (root / lock).exists():
                (root / lock).mkdir()
                break
    elif kind == 2:
        path.with_name(path.name + ".partial").write_bytes(path.read_bytes()[:7])
    else:
        shutil.copytree(
            path.parent, path.parent.with_name(path.parent.name + ".orbax-checkpoint-tmp"), dirs_exist_ok=True
        )


KINDS: dict[str, Do] = {
    "one bit flipped": _flip,
    "eight bytes": _eight,
    "another digit": _digit,
    "truncated": _truncate,
    "empty": _empty,
    "gone": _remove,
    "JSON of another type": _type,
    "a foreign file": _foreign,
    "a link": _link,
    "a folder in its place": _folder,
    "another file's bytes": _swap,
    "stale locks and partial files": _stale,
}


def harm(kind: str, chance: random.Random, root: Path) -> str:
    """Damage something below `root`; what it was."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.suffix != ".html" and "jax" not in path.parts:
            groups.setdefault(f"{path.parent.parent.name}/{path.suffix}", []).append(path)
    if not groups:
        return "nothing there"
    path = chance.choice(groups[chance.choice(sorted(groups))])  # not all of them pieces of arrays
    KINDS[kind](chance, path, root)
    return str(path.relative_to(root))
