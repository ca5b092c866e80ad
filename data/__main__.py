"""`python -m data JOB.json` runs the stage; with a recipe instead, it is `tapeout data`."""

import sys

from common.stage import main
from data.config import DataConfig, DataInputs
from data.stage import run

sys.exit(main("data", run, DataConfig, DataInputs))
