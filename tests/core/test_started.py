"""Processes that tests fork from one that imported torch."""

import sys

import started


def test_what_forks_has_no_thread():
    """Else a child inherits a lock that nobody gives back, some day."""
    done = started.run("-c", "import os; print(*os.listdir(f'/proc/{os.getppid()}/task'))")
    assert len(done.stdout.split()) == 1, done.stderr


def test_a_signal_to_a_process_that_has_just_ended_is_no_error(monkeypatch):
    """The server has taken it away, and its answer is on the way."""
    with started.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        monkeypatch.setattr(process, "poll", lambda: None)
        process.kill()


def test_a_process_that_hangs_tells_where_and_ends(monkeypatch):
    monkeypatch.setattr(started, "LONGEST", 0.5)
    code = "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()"
    done = started.run("-c", code)
    assert done.returncode == 1 and "line 4 in <module>" in done.stderr
