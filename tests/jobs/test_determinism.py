"""One seed on one machine is one result, bit for bit, in any process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import started
from pairs import write_world

import fusemix_core

TOYS = Path(__file__).parents[1] / "toys.py"


@pytest.mark.slow
def test_two_processes_give_the_same_bytes_and_say_what_they_ran_on(tmp_path):
    data = write_world(tmp_path / "world", count=48)
    runs = []
    for kind in ("fresh", "forked"):
        env = {**os.environ, "FUSEMIX_HOME": str(tmp_path / kind)}
        env["PYTHONPATH"] = str(Path(fusemix_core.__file__).parents[1])
        run = tmp_path / kind / "there" / "run"
        run.parent.mkdir(parents=True)
        said = ["-m", "fusemix_core.cli", "align", "--data", data, "--out", "run"]
        said += ["--a", f"{TOYS}:ToyImage", "--b", f"{TOYS}:ToyText", "--device", "cpu"]
        if kind == "fresh":  # the other one has a salt by chance, of the hashes that order sets
            env["PYTHONHASHSEED"] = "1"
            command = [sys.executable, *said]
            done = subprocess.run(command, env=env, cwd=run.parent, capture_output=True, text=True)
        else:
            done = started.run(*said, env=env, cwd=run.parent)
        assert done.returncode == 0, done.stderr
        runs.append(run)
    first, second = runs
    for name in ("model/model.safetensors", "model/config.json", "model/README.md"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    results = [json.loads((run / "results.json").read_text()) for run in runs]
    for one in results:
        one.pop("fit_seconds")
    assert results[0] == results[1]
    facts = [json.loads((run / "environment.json").read_text()) for run in runs]
    assert {"python", "packages"} <= facts[0].keys()
    assert facts[0]["packages"] == facts[1]["packages"]
