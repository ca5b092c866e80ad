"""`python -m convert JOB.json` runs the stage; with a recipe or flags instead, it is `tapeout convert`."""

import sys

from common.stage import main
from convert.config import ConvertConfig, ConvertInputs
from convert.stage import run

if __name__ == "__main__":
    sys.exit(main("convert", run, ConvertConfig, ConvertInputs))
