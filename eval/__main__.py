"""`python -m eval JOB.json` runs the stage; with a recipe instead, it is `tapeout eval`."""

import sys

from common.stage import main
from eval.config import EvalConfig, EvalInputs
from eval.stage import run

sys.exit(main("eval", run, EvalConfig, EvalInputs))
