"""The emulated device for tests."""

import pytest
from accelerator.emulated import emulated

from fusemix_core.engine import metrics


@pytest.fixture
def device(monkeypatch):
    """What is asked of the emulated device. Emulation is slow: nothing is read by the clock."""
    monkeypatch.setattr(metrics, "READ_SECONDS", 1e9)
    with emulated() as asked:
        yield asked
