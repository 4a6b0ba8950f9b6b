"""An objective that takes trust and averaged embeddings and keeps a queue, over several processes:
one's losses, parameters, followers and queue."""

import pytest
from distributed.processes import run_in_processes
from distributed.share_hammer import results, share_hammer
from safetensors.torch import load_file


@pytest.mark.parametrize("count", [2, 3])
def test_steps_are_one_processs(count, tmp_path):
    run_in_processes(count, share_hammer, tmp_path)
    wanted = results()
    assert int(wanted["pointer"]) == 27 % 20
    for i in range(count):
        found = load_file(tmp_path / f"{i}.safetensors")
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            error = (found[name].double() - value.double()).abs().max()
            assert error <= 1e-9 * value.double().abs().max().clamp(min=1), name
