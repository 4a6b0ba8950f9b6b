"""SIGTERM stops a command like Ctrl-C, and only while the command line is the program."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from typer.testing import CliRunner

from fusemix_core.cli import main
from fusemix_core.cli.app import app
from fusemix_core.cli.terminate import Terminated, sigterm_interrupts

STOPPED = """
import os, signal, sys
from fusemix_core.cli import main, plugins
from fusemix_core.cli.app import app

@app.command()
def stop():
    os.kill(os.getpid(), signal.SIGTERM)

sys.argv = ["fusemix", "stop"]
main()
"""


def test_a_terminated_command_says_so_and_exits_with_143():
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True)
    assert done.returncode == 143 and "Interrupted" in done.stderr


def test_the_earlier_handler_is_back_afterwards(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "argv", ["fusemix", "--version"])
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("mine"))
    try:
        with pytest.raises(SystemExit):
            main()
        CliRunner().invoke(app, ["--version"])
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == ["mine"]
        with pytest.raises(Terminated), sigterm_interrupts():
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == ["mine", "mine"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_commands_run_in_other_threads():
    def run():
        with sigterm_interrupts():
            codes.append(CliRunner().invoke(app, ["--version"]).exit_code)

    codes = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert codes == [0]
