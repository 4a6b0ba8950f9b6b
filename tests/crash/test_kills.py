"""Runs that are killed and resumed leave what an undisturbed one leaves, byte for byte."""

import os
from pathlib import Path

import pytest
import started

import fusemix_core

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL and fork are POSIX")


def nursery(folder: Path, runs: int, kills: int, seed: int) -> None:
    paths = [Path(fusemix_core.__file__).parents[1], HERE.parent]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    done = started.run(HERE / "nursery.py", folder, runs, kills, seed, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    stopped = [int(line.split()[1]) for line in lines if line.startswith("stopped ")]
    assert [line for line in lines if not line.startswith("stopped ")] == []
    assert len(stopped) == runs + 2 and sum(stopped) > 2 * runs, stopped


@pytest.mark.parametrize("runs", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_few_kills(tmp_path, runs):
    nursery(tmp_path, runs, kills=2, seed=0)


@pytest.mark.long
def test_a_hundred_kills(tmp_path):
    nursery(tmp_path, 25, kills=4, seed=1)


def killed_rerankers(folder: Path, kills: str) -> int:
    paths = [Path(fusemix_core.__file__).parents[1], HERE.parent]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = started.run(HERE / "rerank_child.py", folder, kills, env=env)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 1, done.stdout + done.stderr
    _, killed, _, ways = lines[0].split()
    assert killed == ways
    return int(killed)


def test_a_re_ranker_that_is_killed_is_resumed_to_the_same(tmp_path):
    assert killed_rerankers(tmp_path, "one") == 1


@pytest.mark.long
def test_a_re_ranker_is_resumed_from_every_kill(tmp_path):
    assert killed_rerankers(tmp_path, "all") > 50
