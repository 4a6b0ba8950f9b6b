"""Runs examples as a user does."""

import pytest
import started
from example_runs import EXAMPLES
from scripts import run_script


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """One for all, so that they share latents and spoken clips."""
    return tmp_path_factory.mktemp("examples-home")


@pytest.fixture(scope="session")
def short_home(home):
    """Of those with encoders of few layers, whose latents are others."""
    return home / "short"


@pytest.fixture
def run(home, short_home, tmp_path):
    def call(name, *args, short=False):
        out = tmp_path / "printed.txt"
        out.unlink(missing_ok=True)
        given = EXAMPLES / name, args, short_home if short else home, out, short
        child = started.Process(run_script, given, started.ENCODERS)
        child.start()
        child.join(900)
        printed = out.read_text()
        assert child.exitcode == 0, printed
        return printed

    return call
