"""Indexes and collections whose writer is killed at every ninth of its writes, in the slow form at
every fourth and in the long form at each of them."""

import os
import shutil
from pathlib import Path

import pytest
import started

import fusemix_core

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL and fork are POSIX")


@pytest.fixture(
    params=[9, pytest.param(4, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.long)],
    ids="every {}".format,
)
def every(request):
    return request.param


def killed(folder: Path, what: str, every: int) -> int:
    paths = [Path(fusemix_core.__file__).parents[1], HERE.parent]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1",
           "FUSEMIX_HOME": str(folder / "home")}  # fmt: skip
    done = started.run(HERE / "killed.py", folder, what, every, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    *wrong, last = done.stdout.splitlines()
    assert wrong == []
    return int(last.removeprefix("killed "))


def test_vectors_are_those_of_before_or_after_and_can_be_gone_on_with(tmp_path, every):
    assert killed(tmp_path, "vectors", every) > 50 // every


def test_lists_are_made_or_grown_or_can_be_made_again(tmp_path, every):
    assert killed(tmp_path, "lists", every) > 60 // every


def test_a_collection_is_that_of_before_or_after_and_can_be_gone_on_with(fitted, tmp_path, every):
    for name in ("run", "world"):
        shutil.copytree(fitted / name, tmp_path / name)
    (tmp_path / "world/pairs.csv").unlink()
    (tmp_path / "spare").mkdir()
    for i in range(20, 24):
        os.rename(tmp_path / f"world/{i}.png", tmp_path / f"spare/{i}.png")
    assert killed(tmp_path, "collection", every) > 20 // every
