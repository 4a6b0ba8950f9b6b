"""An objective that takes tokens, over several processes: one's loss and gradients."""

import pytest
from distributed.processes import run_in_processes
from distributed.share_tokens import OBJECTIVES, results, share_tokens
from safetensors.torch import load_file


@pytest.fixture(scope="module", params=[pytest.param(2, marks=pytest.mark.long), 3])
def found(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    run_in_processes(request.param, share_tokens, folder)
    return [load_file(folder / f"{i}.safetensors") for i in range(request.param)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_value_and_gradients_are_one_processs(name, found):
    wanted = results(name)
    assert len(wanted) >= 5
    for key, value in wanted.items():
        for process in found:
            error = (process[f"{name}/{key}"] - value).abs().max()
            assert error <= 1e-9 * value.abs().max().clamp(min=1), key
