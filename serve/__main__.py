"""`python -m serve JOB.json` runs the stage; other arguments are those of `tapeout serve`."""

import sys

from common.stage import main
from serve.config import ServeConfig, ServeInputs
from serve.stage import run

sys.exit(main("serve", run, ServeConfig, ServeInputs))
