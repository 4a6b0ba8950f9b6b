"""Gradients of several processes: those of one, in buckets that leave while others are made."""

import pytest
import torch
from distributed.processes import run_in_processes
from distributed.share_gradients import share_gradients, wanted
from safetensors.torch import load_file


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.long)])
def found(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradients")
    run_in_processes(request.param, share_gradients, folder)
    return {
        name: [load_file(folder / f"{name}-{i}.safetensors") for i in range(request.param)]
        for name in ("first", "second", "early")
    }


@pytest.mark.parametrize("name", ["first", "second"])
def test_a_gradient_is_that_of_all_processes(name, found):
    whole = wanted(len(found[name]))
    assert {"first's", "between"} <= whole.keys() and "nobody's" not in whole
    for process in found[name]:
        assert process.keys() == whole.keys()
        for key, value in process.items():
            torch.testing.assert_close(value, whole[key])
            assert torch.equal(value, found[name][0][key])


def test_all_but_the_last_buckets_are_sent_during_the_backward_pass(found):
    """Those behind a gradient that a process lacks wait in that process only."""
    whole, *others = (process["early"] for process in found["early"])
    sent = len(whole) // 2  # in each of the two passes
    assert sent > 4 and whole[: sent - 2].all()
    for early in others:
        assert early[0] and not early[sent - 2]
