"""python -m benchmarks.storm: 30 kills x 10 changed settings x 12 kinds of damage, a sample of them by a seed.

Each begins with what a killed command left, damages a file of it, gives the command with the changed setting, then as
it was, following the advice of every error. No finished work may be deleted, no result differ with exit code 0, no
command crash or hang. `--cold`: every process is started anew, as users start them, which takes ten times as long.
"""

import argparse
import contextlib
import itertools
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.storm import warm
from benchmarks.storm.damage import KINDS, harm
from benchmarks.storm.world import SETTINGS, Work, build, commands, content, finished, results, root_of
from common.files import read_json, write_json

KILLS, LONGEST_S, ROUNDS = 30, 240.0, 6
WAYS = ("recipe", "flags")


class Storm:
    def __init__(self, folder: Path, hot: bool):
        self.folder, self.hot = folder, hot
        self.world = folder / "world"
        self.took: dict[str, float] = {}
        if not self.world.exists():
            build(self.world)

    def run(self, way: str, setting: str, place: Path, kill_after: float | None = None) -> tuple[int, str]:
        """(exit code, output) of the commands; that of the first that fails."""
        log, begin = place / "log", time.monotonic()
        log.unlink(missing_ok=True)
        code = 0
        for words in commands(way, setting):
            child = warm.command(words, place, log, self.hot)
            while (found := child.poll()) is None:
                if kill_after is not None and time.monotonic() - begin > kill_after:
                    child.kill()
                if time.monotonic() - begin > LONGEST_S:
                    child.kill()
                    child.wait()
                    return -1, "it hangs\n" + log.read_text(errors="replace")
                time.sleep(0.005)
            code = found
            if code:
                break
        return code, log.read_text(errors="replace") if log.exists() else ""

    def place(self, source: Path, name: str) -> Path:
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(source, place, symlinks=True)
        return place

    def undisturbed(self, way: str, setting: str) -> dict[str, str]:
        known = self.folder / f"calm-{way}-{setting}.json"
        if not known.exists():
            place = self.place(self.world, f"calm-{os.getpid()}")
            code, said = self.run(way, setting, place)
            assert code == 0, said
            write_json(known, results(way, place))
            shutil.rmtree(place)
        return read_json(known)

    def killed(self, number: int, chance: random.Random) -> tuple[str, Path]:
        """A way, and what it leaves when it is killed at a moment by chance."""
        way, place, share = WAYS[number % 2], self.folder / f"killed-{number}", chance.uniform(0.02, 1.05)
        if not place.exists():
            if not self.took:
                for each in WAYS:
                    begin = time.monotonic()
                    self.run(each, "the same", self.place(self.world, "timed"))
                    self.took[each] = time.monotonic() - begin
            self.run(way, "the same", self.place(self.world, place.name), share * self.took[way])
            time.sleep(0.3)  # its children end with it
        return way, place

    def trial(self, way: str, state: Path, setting: str, kind: str, chance: random.Random, name: str) -> list[str]:
        place = self.place(state, name)
        root = root_of(way, place)
        before = finished(root) if root.exists() else []
        harmed = harm(kind, chance, root) if root.exists() else "nothing there"
        whole = [work for work in before if content_of(work.place) == work.content]
        if setting == "a note beside the model":
            (place / "model" / "NOTES.txt").write_text("about this model")
        code, said = self.run(way, setting, place)
        wrong = self.judge(way, setting, place, code, said)
        wrong += self.lost(way, root, whole, code)
        if code == 2 or way == "recipe":
            wrong += self.recovers(way, place)
        return [f"{harmed}: {each}" for each in wrong]

    def judge(self, way: str, setting: str, place: Path, code: int, said: str) -> list[str]:
        if code not in (0, 2) or "unexpected" in said or "Traceback" in said:
            return [f"exit {code}\n{said}"]
        if code == 0:
            calm, found = self.undisturbed(way, setting), results(way, place)
            return [
                f"other results: {name}" for name in calm.keys() | found.keys() if calm.get(name) != found.get(name)
            ]
        return [] if "to do:" in said else [f"no advice\n{said}"]

    def lost(self, way: str, root: Path, whole: list[Work], code: int) -> list[str]:
        there = {content_of(path) for path in root.rglob("*") if path.is_dir()}
        found = []
        for work in whole:
            if work.content in there:
                continue
            newer = (
                [p for p in work.place.parent.glob("*") if p.name.isdigit() and int(p.name) > int(work.place.name)]
                if work.place.name.isdigit()
                else []
            )
            if work.place.parent.name == "checkpoints" and (newer or code == 0):
                continue  # replaced by later ones
            found.append(f"lost: {work.place.relative_to(root)}")
        return found

    def recovers(self, way: str, place: Path) -> list[str]:
        """The command as it was ends well, with what its errors advise."""
        said = ""
        for _ in range(ROUNDS):
            code, said = self.run(way, "the same", place)
            if wrong := self.judge(way, "the same", place, code, said):
                return [f"as it was: {each}" for each in wrong]
            if code == 0:
                return []
            if not follow(said, place):
                return [f"advice that cannot be followed\n{said}"]
        return [f"never ends well\n{said}"]


def content_of(folder: Path) -> str:
    try:
        return content(folder)
    except OSError:
        return "unreadable"


def follow(said: str, place: Path) -> bool:
    """Do what an error's last lines advise about the place that they name."""
    where = re.findall(r"where: (.+)", said)
    advice = re.findall(r"to do: (.+)", said)
    if not where or not advice:
        return False
    named = where[-1].strip()
    path = Path(named)
    if not path.is_symlink() and not path.exists():
        path = Path(re.sub(r":\s?[^/]*$", "", named))
    if "rename the folder to" in advice[-1]:
        folder = path if path.is_dir() else path.parent
        folder.rename(folder.with_name(folder.name + ".partial"))
    elif re.search(r"delete (this|the) folder|delete this one", advice[-1]):
        folder = path if path.is_dir() and not path.is_symlink() else path.parent
        shutil.rmtree(folder)
    elif "name a new folder with --out" in advice[-1]:
        path.rename(path.with_name(f"{path.name}-{time.time_ns()}"))
    elif found := re.match(r"delete (checkpoints/\d+) beside it", advice[-1]):
        shutil.rmtree(path.parent / found[1])
    elif "delete this line" in advice[-1]:
        number = int(named.rpartition(":")[2])
        lines = path.read_bytes().split(b"\n")
        path.write_bytes(b"\n".join(lines[: number - 1] + lines[number:]))
    elif re.search(r"\b(delete|remove|move|rename)\b", advice[-1]):
        if added := re.findall(r"error: (\S+) was added", said):
            path = path / added[-1]
        if not (path.exists() or path.is_symlink()):
            return False
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    elif "run the train stage again" in advice[-1] and (place / "out").exists():
        shutil.move(place / "out" / "train", place / "out" / "train.partial")
    else:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--combinations", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="Of the sample, this one alone")
    parser.add_argument("--first", type=int, default=0, help="Of the sample, those from this one on")
    parser.add_argument("--work", metavar="DIR", help="Keep kills and undisturbed results there, for another time")
    parser.add_argument("--jobs", type=int, default=2, help="Combinations at a time")
    parser.add_argument("--cold", action="store_true")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as stack:
        name = asked.work or stack.enter_context(tempfile.TemporaryDirectory(prefix="storm-"))
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{name}/jax")
        os.environ |= {
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        Path(name).mkdir(exist_ok=True)
        if not asked.cold:
            warm.load()
        return blow(Storm(Path(name).resolve(), not asked.cold), asked)


def blow(storm: Storm, asked: Any) -> int:
    chance = random.Random(asked.seed)
    states = [storm.killed(number, chance) for number in range(KILLS)]
    for _, place in states:
        left = sorted(str(p.relative_to(place)) for p in place.glob("*/*") if p.parent.name in ("runs", "out"))
        print(f"  {place.name}: {', '.join(left) or 'nothing'}", flush=True)
    sample = chance.sample(list(itertools.product(range(KILLS), SETTINGS, KINDS)), asked.combinations)
    wanted = [(n, *each) for n, each in enumerate(sample) if asked.only in (None, n) and n >= asked.first]

    def work(job: int) -> None:
        bad = 0
        for number, kill, setting, kind in wanted[job :: asked.jobs]:
            way, state = states[kill]
            chance = random.Random(asked.seed * 10_000 + number)
            wrong = storm.trial(way, state, setting, kind, chance, f"trial-{job}")
            bad += bool(wrong)
            if number % 20 == 0:
                print(f"{number} of {asked.combinations} begun", flush=True)
            for each in wrong:
                print(f"{number}: kill {kill} ({way}), {setting}, {kind}: {each}", flush=True)
        sys.exit(min(bad, 100))

    workers = [warm.Warm(lambda job=job: work(job), None) for job in range(asked.jobs)]
    bad = [worker.wait() for worker in workers]
    kinds = Counter(kind for *_, kind in wanted)
    print(f"{len(wanted)} combinations, {sum(bad)} bad; {dict(kinds)}")
    return any(bad)


if __name__ == "__main__":
    sys.exit(main())
