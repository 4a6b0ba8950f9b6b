from pathlib import Path

import pytest
import started

from fusemix_core.latents import child
from fusemix_core.latents.store import LatentStore
from fusemix_core.userfile import import_file

HERE = Path(__file__).parent


@pytest.fixture
def children_forked(monkeypatch):
    """Processes of extraction come from one that has imported torch."""
    monkeypatch.setattr(child, "subprocess", started.forked)


@pytest.fixture
def toy():
    """The module toy.py, its counters at zero."""
    module = import_file(HERE / "toy.py")
    module.ToyEncoder.loads = 0
    module.ToyEncoder.batches = []
    return module


@pytest.fixture
def store(tmp_path):
    return LatentStore(tmp_path / "home")
