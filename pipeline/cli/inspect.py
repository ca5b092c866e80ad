"""`tapeout inspect DIR`: a process of the models' room reads the folder, so that the conductor stays light."""

import os
import subprocess
import sys
from typing import Annotated

import typer

from pipeline.cli.options import Debug, guarded
from pipeline.run.fetching import local_folder

MODULE = "models.folder.inspect"


def inspect(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Model folder in Hugging Face layout, or a Hub id")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False,
    debug: Debug = False,
) -> None:
    """Say what a model folder is: family, layers, rows, parameters, memory, and every tensor's fate."""

    def work() -> int:
        command = [sys.executable, "-m", MODULE, local_folder(folder), *(["--json"] if as_json else [])]
        env = os.environ | ({"TAPEOUT_DEBUG": "1"} if debug else {})
        return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, check=False).returncode

    guarded(work, debug)
