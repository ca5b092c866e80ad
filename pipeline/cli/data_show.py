"""`tapeout data --show N`: conversations with their loss mask, encoded by a process of the data room."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.schema import Section
from pipeline.cli.commands import fetched
from pipeline.cli.options import Options, open_recipe
from pipeline.run import checks
from pipeline.run.children import tell
from pipeline.run.graph import Step, compared_rows
from pipeline.run.inputs import check_paths

MODULE = "data.show"
SHOWN = 5


@dataclass(frozen=True)
class View:
    """How many conversations, and whether as lines for tools or as a page."""

    count: int
    as_json: bool
    html: Path | None

    def of_recipe(self, options: Options) -> int:
        """Rows of a recipe's data section."""
        assert options.recipe is not None
        opened = open_recipe(options.recipe, options.sets, options.runs, options.debug)
        checks.check_sense(opened.recipe)
        recipe = fetched(opened.recipe)
        check_paths(recipe, opened.source)
        return self._shown(compared_rows(recipe), {"model": recipe.model.path}, options.debug)

    def of_step(self, step: Step, debug: bool) -> int:
        """Rows of a step that flags describe."""
        return self._shown(step.config, step.inputs, debug)

    def _shown(self, config: Section, inputs: dict[str, Any], debug: bool) -> int:
        if self.as_json and self.html is not None:
            raise UserError("one line a conversation, or a page", where="--json, --html", fix="leave out either")
        if self.html is not None and not self.html.absolute().parent.is_dir():
            raise UserError("no such folder", where=f"--html {self.html}", fix="make it first")
        job = {
            "config": config.model_dump(mode="json"),
            "inputs": inputs,
            "count": self.count,
            "form": "json" if self.as_json else "colour" if sys.stdout.isatty() else "plain",
            "html": str(self.html.absolute()) if self.html is not None else None,
        }
        env = os.environ | {"TAPEOUT_DEBUG": "1" if debug else "0"}
        return tell(MODULE, job, env)


def refuse_out() -> int:
    """Raises UserError: rows that are shown are not written."""
    raise UserError("--show writes no result", where="--out", fix="leave it out")
