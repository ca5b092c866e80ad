"""The first lines of every process of ours: nothing else of ours is imported before the path is safe.

`tapeout` begins here, under a name that no folder of a user's has by chance; and so does what `common.process` starts:
`python -P tapeout.py --child PARENT MODULE ARGUMENT...`.
"""

import os
import sys

_PR_SET_PDEATHSIG = 1


def _begin(as_file: bool) -> bool:
    """Open streams and a safe path; whether this is a child of ours, which only this file, run by its place, begins."""
    given = list(sys.path)
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from common import safe_path  # noqa: PLC0415  from here, whatever the path holds besides

    safe_path.open_streams()
    child = as_file and sys.argv[1:2] == [safe_path.CHILD]
    sys.path[:] = safe_path.ours_first(given if child else safe_path.without_working_folder(given))
    return child


def main(as_file: bool = False) -> None:
    """The command line, or in a child the module that it names."""
    if _begin(as_file):
        _run_child()
        return
    import signal  # noqa: PLC0415  not before the path is safe

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C before the command has begun prints no traceback
    from pipeline.cli.app import main as command_line  # noqa: PLC0415

    command_line()


def _run_child() -> None:
    """Run a module as `python -m` does; a parent that is named by its id takes this process with it when it dies.

    It answers to SIGINT and SIGTERM whatever its parent ignored (a shell's background job ignores SIGINT) or blocked.
    """
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
    main(as_file=True)
