"""Watching files: when an update is due."""

import os

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
