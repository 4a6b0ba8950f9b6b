"""Objectives that read facts, of all rows and of their own: processes give what one does."""

import pytest
from distributed.processes import run_in_processes
from distributed.share_facts import OBJECTIVES, results, share_facts
from safetensors.torch import load_file


@pytest.fixture(scope="module", params=[pytest.param(2, marks=pytest.mark.long), 3])
def found(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("facts")
    run_in_processes(request.param, share_facts, folder)
    return [load_file(folder / f"{i}.safetensors") for i in range(request.param)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_steps_are_one_processs(name, found):
    for key, value in results(name).items():
        for process in found:
            error = (process[f"{name}/{key}"].double() - value.double()).abs().max()
            assert error <= 1e-9 * value.double().abs().max().clamp(min=1), key
