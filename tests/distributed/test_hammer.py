"""Objectives that take trust and averaged embeddings, one with a queue, over several processes:
one's losses, parameters, followers and queue."""

import pytest
from distributed.processes import run_in_processes
from distributed.share_hammer import OBJECTIVES, results, share_hammer
from safetensors.torch import load_file


@pytest.fixture(scope="module", params=[pytest.param(2, marks=pytest.mark.long), 3])
def found(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hammer")
    run_in_processes(request.param, share_hammer, folder)
    return [load_file(folder / f"{i}.safetensors") for i in range(request.param)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_steps_are_one_processs(name, found):
    for key, value in results(name).items():
        for process in found:
            error = (process[f"{name}/{key}"].double() - value.double()).abs().max()
            assert error <= 1e-9 * value.double().abs().max().clamp(min=1), key


def test_the_queue_has_gone_round():
    assert int(results("hammer")["pointer"]) == 27 % 20
