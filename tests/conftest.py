"""Every test runs offline, with a fusemix home of its own."""

import gc
import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path_factory.mktemp("home")))


def pytest_collection_finish():
    """What tests import stays: no collection of garbage need look at it again."""
    gc.collect()
    gc.freeze()
