"""Compiled programs are shared by all processes of a test session, as they are by the stages of a run."""

import os
import shutil
import tempfile

import pytest

CACHE = "JAX_COMPILATION_CACHE_DIR"
made = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"  # in the stages' processes, too
    if CACHE not in os.environ:  # a worker process finds its parent's
        os.environ[CACHE] = config.stash[made] = tempfile.mkdtemp(prefix="tapeout-compiled-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if made in config.stash:
        shutil.rmtree(config.stash[made], ignore_errors=True)
