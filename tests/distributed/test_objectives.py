"""Objectives over 3 processes, in the long form over 2 and 4, with unequal numbers of rows: one
process's loss and gradients.

With 3 processes the last has no rows at all. Rows of other processes are gathered, or go round in a
ring.
"""

import pytest
import torch
from distributed.processes import run_in_processes
from distributed.share_objectives import BATCHES, OBJECTIVES, WAYS, results, share_objectives
from safetensors.torch import load_file


@pytest.fixture(
    scope="module",
    params=[pytest.param(2, marks=pytest.mark.long), 3, pytest.param(4, marks=pytest.mark.long)],
)
def found(request, tmp_path_factory):
    """What each process found, by `way/objective/batch/name`."""
    folder = tmp_path_factory.mktemp("objectives")
    run_in_processes(request.param, share_objectives, folder)
    return [load_file(folder / f"{i}.safetensors") for i in range(request.param)]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("way", WAYS)
def test_value_and_gradients_are_one_processs(way, objective, batch, found):
    tolerance = {"float32": 1e-6, "in half": 1e-3}.get(batch, 1e-10)
    for name, wanted in results(objective, batch, slice(None)).items():
        parts = [process[f"{way}/{objective}/{batch}/{name}"] for process in found]
        if name == "loss":
            assert all(torch.equal(part, parts[0]) for part in parts)
            got = parts[0]
        elif name.startswith("rows/"):
            got = torch.cat(parts) / len(parts)
        else:
            got = torch.stack(parts).mean(0)  # as DistributedDataParallel averages
        assert (got - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=1), name
