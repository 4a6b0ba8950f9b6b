"""A run of toy encoders, fitted once, and collections of its world."""

import shutil
from pathlib import Path

import pytest
from pairs import write_world

from fusemix_core.config import DataConfig
from fusemix_core.jobs.align import align
from fusemix_core.runs.models import load_model
from fusemix_core.runs.reporter import Reporter

TOYS = Path(__file__).parents[1] / "toys.py"
ENCODERS = {"image": f"{TOYS}:ToyImage", "text": f"{TOYS}:ToyText"}


class Heard(Reporter):
    """Keeps the notes, and counts the items that are encoded."""

    def __init__(self):
        self.notes, self.totals = [], {}

    def note(self, text):
        self.notes.append(text)

    def encoding(self, name, done, total):
        self.totals[name] = total

    @property
    def encoded(self):
        return sum(self.totals.values())


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """The folder of a run in `run`, with its world in `world`."""
    folder = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEMIX_HOME", str(folder / "home"))
        align(ENCODERS, str(write_world(folder / "world", 96)), recipe="cca", out=folder / "run",
              overrides=["scorer=csls"])  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def model(fitted):
    return load_model(fitted / "run", "cpu", ENCODERS)


@pytest.fixture
def world(fitted, tmp_path, monkeypatch):
    """A copy of the world to change, with a home of its own."""
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "home"))
    shutil.copytree(fitted / "world", tmp_path / "world")
    return tmp_path / "world"


def data_of(world, **more):
    return DataConfig((str(world),), **more)
