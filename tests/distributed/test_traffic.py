"""What processes send each other in a step, a ratchet: `traffic.json` may only shrink.

It has the calls of `torch.distributed` and the bytes that a process sends, of 15 pairs a step in
float64, for each recipe and number of processes. More fails, and so does less than it says: then
put the new numbers there.
"""

import json
from pathlib import Path

import pytest
import torch.distributed as dist
from distributed.processes import run_in_processes
from distributed.share_traffic import RECIPES, share_traffic

ALLOWED = Path(__file__).with_name("traffic.json")


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.long)])
def traffic(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("traffic")
    run_in_processes(request.param, share_traffic, folder)
    found = [json.loads((folder / f"{i}.json").read_text()) for i in range(request.param)]
    return f"{request.param} processes", found


def test_a_step_sends_no_more_than_it_did(traffic):
    processes, found = traffic
    assert all(other.keys() == RECIPES.keys() for other in found)
    most = {
        name: {key: max(own[name][key] for own in found) for key in ("calls", "bytes")}
        for name in RECIPES
    }
    allowed = json.loads(ALLOWED.read_text())[processes]
    if not hasattr(dist, "reduce_scatter_single"):  # torch before 2.14 sends more by gloo
        for counts in (*most.values(), *allowed.values()):
            del counts["bytes"]
    assert most == allowed, json.dumps({processes: most})


def test_all_processes_make_the_same_calls(traffic):
    _, found = traffic
    calls = [{name: own[name]["calls"] for name in RECIPES} for own in found]
    assert all(other == calls[0] for other in calls)
