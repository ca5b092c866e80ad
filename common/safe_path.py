"""What a process of ours may import: the standard library, then this package, then the rest of its path.

Never the working folder, wherever that is: a data.py, models/ or json.py that lies there is not ours to run. This
module is imported before the path is safe, and so imports nothing that the interpreter has not loaded by then.
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FIRST = os.path.join(ROOT, "tapeout.py")
"""Where every process of ours begins."""
CHILD = "--child"
"""Its first argument where it is to run another module: `tapeout.py --child PARENT MODULE ARGUMENT...`."""


def elsewhere(entries: list[str]) -> list[str]:
    """The entries of a path that name another folder than the working folder, wherever that is: an absolute place."""
    return [entry for entry in entries if os.path.isabs(entry) and not _is_here(entry)]


def _is_here(entry: str) -> bool:
    try:
        return os.path.samefile(entry, os.curdir)
    except OSError:
        return False


def ours_first(entries: list[str]) -> list[str]:
    """`entries` behind the standard library and this package."""
    library = os.path.dirname(os.__file__)
    first = [library, os.path.join(library, "lib-dynload"), ROOT]
    return [*first, *(entry for entry in entries if entry not in first)]


def without_working_folder(entries: list[str]) -> list[str]:
    """`entries` less what Python put there for the working folder, or for a PYTHONPATH that leads to it."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep) + ([] if sys.flags.safe_path else entries[:1])
    try:
        here = os.getcwd()
    except OSError:  # it was deleted: nothing lies there
        here = ""
    unsafe = {"", *(os.path.normpath(os.path.join(here, entry)) for entry in given if entry not in elsewhere([entry]))}
    return [entry for entry in entries if entry not in unsafe]


def open_streams() -> None:
    """Standard streams that were closed lead nowhere, or the next files that are opened would be taken for them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, "w" if number else "r"))
