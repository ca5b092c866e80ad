"""`python -m train JOB.json` runs the stage; with a recipe instead, it is `tapeout train`."""

import sys

from common.stage import main
from train.config import TrainConfig, TrainInputs
from train.stage import run

sys.exit(main("train", run, TrainConfig, TrainInputs))
