"""`python -m convert JOB.json` runs the stage; with a recipe or flags instead, it is `tapeout convert`."""

import os
import sys

# Before NumPy is loaded: the stage runs a piece on each core, and BLAS threads of their own would wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from common.stage import main
from convert.config import ConvertConfig, ConvertInputs
from convert.stage import run

if __name__ == "__main__":
    sys.exit(main("convert", run, ConvertConfig, ConvertInputs))
