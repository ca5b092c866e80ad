"""The first lines of every process of ours: nothing of ours is imported before the path is safe.

`tapeout` begins here, under a name that no folder of a user's has by chance; and so does what `common.process` starts:
`python -P tapeout.py --child PARENT MODULE ARGUMENT...`. The standard library comes first, then the folder of this
file, then the rest, and never the working folder: a data.py, models/ or json.py that lies there is not ours to run.
"""

import os
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
CHILD = "--child"
_PR_SET_PDEATHSIG = 1


def elsewhere(entries: list[str]) -> list[str]:
    """The entries of a path that name another folder than the working folder, wherever that is: an absolute place."""
    return [entry for entry in entries if os.path.isabs(entry) and not _is_here(entry)]


def _is_here(entry: str) -> bool:
    try:
        return os.path.samefile(entry, os.curdir)
    except OSError:
        return False


def _ours_first(entries: list[str]) -> list[str]:
    library = os.path.dirname(os.__file__)
    first = [library, os.path.join(library, "lib-dynload"), ROOT]
    return [*first, *(entry for entry in entries if entry not in first)]


def _open_streams() -> None:
    """Standard streams that were closed lead nowhere, or the next files that are opened would be taken for them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, "w" if number else "r"))


def main() -> None:
    """The command line. What Python put on the path for the working folder, or for PYTHONPATH in it, is taken off."""
    _open_streams()
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep) + ([] if sys.flags.safe_path else sys.path[:1])
    try:
        here = os.getcwd()
    except OSError:  # it was deleted: nothing lies there
        here = ""
    unsafe = {"", *(os.path.normpath(os.path.join(here, entry)) for entry in given if entry not in elsewhere([entry]))}
    sys.path[:] = _ours_first([entry for entry in sys.path if entry not in unsafe])
    import signal  # noqa: PLC0415

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C before the command has begun prints no traceback
    from pipeline.cli.app import main as command_line  # noqa: PLC0415  not before the path is safe

    command_line()


def _child() -> None:
    """Run a module as `python -m` does; a parent that is named by its id takes this process with it when it dies.

    It answers to SIGINT and SIGTERM whatever its parent ignored (a shell's background job ignores SIGINT) or blocked.
    """
    _open_streams()
    sys.path[:] = _ours_first(sys.path)
    import ctypes  # noqa: PLC0415  not before the path is safe
    import runpy  # noqa: PLC0415
    import signal  # noqa: PLC0415

    parent, module = int(sys.argv[2]), sys.argv[3]
    del sys.argv[1:4]
    if parent:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _child() if sys.argv[1:2] == [CHILD] else main()
