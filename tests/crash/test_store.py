import os
from pathlib import Path

import pytest
import started

import fusemix_core

HERE = Path(__file__).parent


def tree(home):
    return {p.relative_to(home): p.read_bytes() for p in sorted(home.rglob("*")) if p.is_file()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL and fork are POSIX")
@pytest.mark.parametrize(
    ("view", "shards"), [("pooled", 7), pytest.param("tokens", 5, marks=pytest.mark.long)]
)
def test_killed_and_resumed_leaves_what_an_undisturbed_run_leaves(tmp_path, view, shards):
    env = {**os.environ, "PYTHONPATH": str(Path(fusemix_core.__file__).parents[1])}
    env["OMP_NUM_THREADS"] = "1"
    done = started.run(HERE / "store_child.py", tmp_path, view, env=env)
    assert done.returncode == 0, done.stderr
    whole = tree(tmp_path / "whole")
    assert len(whole) == shards  # 640 good items, 100 a shard or four groups of 32
    homes = sorted(p for p in tmp_path.iterdir() if p.name != "whole")
    assert len(homes) == 10
    for home in homes:
        assert tree(home) == whole, home.name


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL and fork are POSIX")
def test_an_index_whose_maker_is_killed_is_made_by_the_next(tmp_path):
    paths = [Path(fusemix_core.__file__).parents[1], HERE.parent]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = started.run(HERE / "index_child.py", tmp_path, env=env)
    assert done.stdout.splitlines() == ["killed 16"], done.stdout + done.stderr
