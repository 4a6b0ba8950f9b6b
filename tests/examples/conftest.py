"""Runs examples as a user does."""

import pytest
from example_runs import EXAMPLES
from forkserver import CONTEXT
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
        child = CONTEXT.Process(target=run_script, args=(EXAMPLES / name, args, home, out))
        child.start()
        child.join(900)
        printed = out.read_text()
        assert child.exitcode == 0, printed
        return printed

    return call
