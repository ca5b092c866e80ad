"""Of all processes of a test session: one store of compiled programs, as the stages of a run have one, and errors in
place of implicit promotions of types and ranks, which hide mistakes in axes and lose the dtype that was meant."""

import os
import shutil
import tempfile

import pytest

CACHE = "JAX_COMPILATION_CACHE_DIR"
STRICT = {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"}
os.environ |= STRICT  # here, since the conftests of folders below import JAX, which reads it once; children inherit it
made = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    if CACHE not in os.environ:  # a worker process finds its parent's
        os.environ[CACHE] = config.stash[made] = tempfile.mkdtemp(prefix="tapeout-compiled-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if made in config.stash:
        shutil.rmtree(config.stash[made], ignore_errors=True)
