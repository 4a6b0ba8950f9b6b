"""Watching files: when an update is due."""

import importlib.util
import os
import queue
import threading
import time

import pytest

from fusemix_core.search import watching
from fusemix_core.search.watching import changes


def looked(sources, *steps):
    """How often something was yielded after each of the steps, which happen between two looks."""
    seen, counts, todo = 0, [], list(steps)

    class Done(Exception):
        pass

    def sleep(seconds):
        counts.append(seen)
        if not todo:
            raise Done
        todo.pop(0)()

    try:
        for _ in changes(sources, 1, sleep):
            seen += 1
    except Done:
        return counts[1:]


def test_a_change_is_yielded_once_when_it_rests(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    file = tmp_path / "a/b/x.png"

    def nothing():
        pass

    grows = [lambda n=n: file.write_bytes(b"x" * n) for n in (1, 2, 3)]
    assert looked([tmp_path], nothing, *grows, nothing, nothing, nothing) == [0, 0, 0, 0, 1, 1, 1]


def test_new_moved_lost_and_changed_files_are_changes(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    (tmp_path / "single.csv").write_text("x")

    def rest():
        pass

    steps = [
        lambda: (tmp_path / "d").write_text("d"),
        lambda: os.rename(tmp_path / "a", tmp_path / "e"),
        lambda: os.unlink(tmp_path / "b"),
        lambda: (tmp_path / "c").write_text("other"),
    ]
    for step in steps:
        assert looked([tmp_path], step, rest) == [0, 1]
    other = lambda: (tmp_path / "c").write_text("third")  # noqa: E731
    assert looked([tmp_path / "single.csv"], other, rest) == [0, 0]
    single = lambda: (tmp_path / "single.csv").write_text("xyz")  # noqa: E731
    assert looked([tmp_path / "single.csv"], single, rest) == [0, 1]


def test_a_source_that_is_gone_is_waited_for(tmp_path):
    assert looked([tmp_path / "later"], (tmp_path / "later").mkdir, lambda: None) == [0, 0]
    steps = [lambda: (tmp_path / "later/x").write_text("x"), lambda: None]
    assert looked([tmp_path / "later"], *steps) == [0, 1]


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """A folder that is watched in a thread: (the folder; waits for a change)."""
    seen, begun, ends = queue.Queue(), threading.Event(), threading.Event()
    (tmp_path / "photos").mkdir()
    real = watching._digest

    def digest(sources):
        found = real(sources)
        begun.set()
        return found

    monkeypatch.setattr(watching, "_digest", digest)

    def follow():
        for _ in changes([tmp_path / "photos"], 0.2):
            if ends.is_set():
                return
            seen.put(None)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    assert begun.wait(20)
    (tmp_path / "photos/first.png").write_bytes(b"1")
    seen.get(timeout=20)
    yield tmp_path / "photos", lambda timeout=20: seen.get(timeout=timeout)
    ends.set()
    (tmp_path / "photos/last.png").write_bytes(b"1")
    thread.join(20)


def test_the_system_reports_changes_of_a_real_folder(watched):
    folder, wait = watched
    (folder / "a.png").write_bytes(b"a")
    wait()
    (folder / "below").mkdir()
    (folder / "below/b.png").write_bytes(b"b")
    wait()
    os.rename(folder / "below/b.png", folder / "c.png")
    wait()
    (folder / "c.png").unlink()
    wait()


def test_a_copy_is_reported_when_it_is_complete(watched):
    folder, wait = watched
    with open(folder / "large.png", "wb") as file:
        for _ in range(8):
            file.write(b"x" * 1000)
            file.flush()
            time.sleep(0.05)
    begun = time.monotonic()
    wait()
    assert time.monotonic() - begun > 0.1
    with pytest.raises(queue.Empty):
        wait(1)


def test_a_folder_that_is_replaced_is_watched_again(watched):
    folder, wait = watched
    (folder / "a.png").write_bytes(b"a")
    wait()
    os.rename(folder, folder.with_name("former"))
    wait()
    folder.mkdir()
    (folder / "b.png").write_bytes(b"b")
    wait()
    (folder / "c.png").write_bytes(b"c")
    wait()


def test_nothing_is_looked_at_while_nothing_is_reported(watched, monkeypatch):
    looks = []
    monkeypatch.setattr(watching, "_digest", lambda sources: looks.append(1) or b"")
    time.sleep(1.5)
    assert not looks


def test_without_watchfiles_the_folder_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    seen = changes([tmp_path], 0.1)
    threading.Timer(0.3, (tmp_path / "a.png").write_bytes, (b"a",)).start()
    next(seen)
    assert "_looked" in seen.gi_frame.f_locals["look"].__name__
