"""Runs examples as a user does."""

import pytest
import started
from example_runs import EXAMPLES
from scripts import run_script


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """One for all, so that they share latents and spoken clips."""
    return tmp_path_factory.mktemp("examples-home")


@pytest.fixture
def run(home, tmp_path):
    def call(name, *args):
        out = tmp_path / "printed.txt"
        out.unlink(missing_ok=True)
        child = started.Process(run_script, (EXAMPLES / name, args, home, out), started.ENCODERS)
        child.start()
        child.join(900)
        printed = out.read_text()
        assert child.exitcode == 0, printed
        return printed

    return call
