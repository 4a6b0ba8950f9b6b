"""Tests of fusemix and of its plugins run offline, in one thread, with a fusemix home each."""

import gc
import os

import pytest

# Before torch is imported. With one thread a test worker leaves the other cores to other workers.
os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path_factory.mktemp("home")))


def pytest_collection_finish():
    """What tests import stays: no collection of garbage need look at it again."""
    gc.collect()
    gc.freeze()
