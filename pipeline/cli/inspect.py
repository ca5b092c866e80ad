"""`tapeout inspect DIR`: a process of the models' room reads the folder, so that the conductor stays light."""

import json
import os
from typing import Annotated

import typer

from pipeline.cli.options import Debug, guarded
from pipeline.run.children import ask
from pipeline.run.fetching import local_folder

MODULE = "models.folder.inspect"


def inspect(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Model folder in Hugging Face layout, or a Hub id")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False,
    debug: Debug = False,
) -> None:
    """Say what a model folder is: family, layers, rows, parameters, memory, and every tensor's fate."""

    def work() -> int:
        answer = ask(MODULE, {"folder": local_folder(folder)}, os.environ | ({"TAPEOUT_DEBUG": "1"} if debug else {}))
        if answer.said is not None:
            print(json.dumps(answer.said["about"]) if as_json else answer.said["text"])
        return answer.code

    guarded(work, debug)
