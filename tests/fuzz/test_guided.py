"""The readers in Python by atheris, guided by the lines that an input reaches."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GUIDED = ["csv", "tsv", "jsonl", "json", "tar", "braces", "run-config", "settings", "encoder-name",
          "classes", "templates", "model-config", "shard", "metrics", "bench-results"]  # fmt: skip


@pytest.mark.long
@pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="pip install 'fusemix[fuzz]'")
@pytest.mark.parametrize("target", GUIDED)
def test_ten_thousand(target, tmp_path):
    env = {**os.environ, "FUSEMIX_HOME": str(tmp_path / "home")}
    env["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent)])
    done = subprocess.run(
        [sys.executable, HERE / "guided.py", target, tmp_path, "-runs=10000"],
        env=env, capture_output=True, text=True, errors="replace", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0 and "Done 10000 runs" in done.stderr, done.stderr[-4000:]
