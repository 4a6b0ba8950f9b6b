"""`align` under torchrun, on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import started
from pairs import write_world
from safetensors.torch import load_file

from fusemix_core import align
from fusemix_core.runs.folder import read_metrics

TOYS = Path(__file__).parents[1] / "toys.py"
ENCODERS = {"image": f"{TOYS}:ToyImage", "text": f"{TOYS}:ToyText"}
SETTINGS = ["training.epochs=3", "adapter.blocks=1", "adapter.dropout=0.0", "dim=8"]


FORKED = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import started
from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler
from torch.distributed.run import main
subprocess_handler.Popen = started.Popen
main()
"""


def torchrun(*arguments, fresh=False):
    """The command; its processes are forked from one that has imported torch, or fresh."""
    start = ["-m", "torch.distributed.run"] if fresh else ["-c", FORKED, TOYS.parent]
    command = [*start, "--nproc-per-node", "2", "-m", "fusemix_core.cli", "align", *arguments]
    command += ["--device", "cpu", "--recipe", "fusemix"]
    command += ["--a", ENCODERS["image"], "--b", ENCODERS["text"]]
    command += [word for setting in SETTINGS for word in ("--set", setting)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if not fresh:
        return started.run(*command, env=environment)
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize("fresh", [False, pytest.param(True, marks=pytest.mark.long)])
def test_two_processes_make_the_model_of_one_and_tell_it_once(tmp_path, fresh):
    data, two = write_world(tmp_path / "w"), tmp_path / "two"
    done = torchrun("--data", data, "--out", two, "--select", "dpp", "--pairs", 40, fresh=fresh)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("from_pretrained") == 1
    assert done.stderr.count("Encoding") == 1
    how = {"recipe": "fusemix", "overrides": SETTINGS, "select": "dpp", "pairs": 40}
    one = align(ENCODERS, data, out=tmp_path / "one", device="cpu", **how)
    chosen = [(tmp_path / run / "chosen.jsonl").read_text() for run in ("two", "one")]
    assert chosen[0] == chosen[1] and len(chosen[0].splitlines()) == 40
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == sorted(
        p.name for p in one.folder.path.iterdir()
    )
    wanted = load_file(one.folder.model / "model.safetensors")
    for name, value in load_file(tmp_path / "two/model/model.safetensors").items():
        assert value == pytest.approx(wanted[name], abs=1e-5), name
    steps = [read_metrics(tmp_path / f"{run}/metrics.jsonl") for run in ("two", "one")]
    assert [row["step"] for row in steps[0]] == [row["step"] for row in steps[1]]


@pytest.mark.slow
def test_an_error_ends_all_processes(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/other").touch()
    done = torchrun("--data", write_world(tmp_path / "w"), "--out", tmp_path / "out")
    assert done.returncode != 0 and "forcefully exiting" not in done.stderr
    assert "Error in process 0: " in done.stderr and "is not empty" in done.stderr
