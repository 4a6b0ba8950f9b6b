"""Processes that tests fork from one that imported torch."""

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import pytest
import started
from started import ENCODERS, LIBRARIES


def test_what_forks_has_no_thread():
    """Else a child inherits a lock that nobody gives back, some day."""
    done = started.run("-c", "import os; print(*os.listdir(f'/proc/{os.getppid()}/task'))")
    assert len(done.stdout.split()) == 1, done.stderr


def test_what_forks_with_more_libraries_was_forked_with_the_others():
    pytest.importorskip("sentence_transformers")
    code = "import os; print(open(f'/proc/{os.getppid()}/status').read(), os.getppid())"
    few, more = (started.run("-c", code, libraries=one) for one in (LIBRARIES, ENCODERS))
    server, status = few.stdout.split()[-1], more.stdout
    assert f"PPid:\t{server}\n" in status, more.stderr


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


def test_a_worker_that_serves_all_tests_may_take_longer(monkeypatch):
    monkeypatch.setattr(started, "LONGEST", 0.5)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(time.sleep, 1.0).result()


def test_a_process_ends_as_a_fresh_one_does(tmp_path):
    """Threads are waited for, what is registered runs, and files that are open get their rest."""
    code = """if True:
        import atexit, sys, threading, time
        file = open(sys.argv[1], "w")
        file.write("a line")
        atexit.register(lambda: print("at exit", sys.argv[1] and threading.active_count()))
        threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
        sys.exit("a reason")
    """
    (tmp_path / "script.py").write_text(code)
    for arguments in (("-c", code), (tmp_path / "script.py",)):
        done = started.run(*arguments, tmp_path / "file")
        assert done.returncode == 1 and done.stderr == "a reason\n"
        assert done.stdout == "thread\nat exit 1\n"
        assert (tmp_path / "file").read_text() == "a line"
