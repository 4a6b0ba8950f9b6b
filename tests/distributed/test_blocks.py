"""Two processes of one fit never train on different rows in silence."""

import pytest
import torch
from distributed.processes import run_in_processes
from distributed.share_blocks import fitted, share_blocks, share_other_rows
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blocks")
    run_in_processes(2, share_blocks, folder)
    return folder


@pytest.mark.parametrize("on_disk", [0, 1])
def test_one_that_holds_its_tables_and_one_that_does_not_make_the_fit_of_one(on_disk, shared):
    found = [load_file(shared / f"{on_disk}-{i}.safetensors") for i in range(2)]
    held, wanted = fitted(on_disk=False), fitted(on_disk=True)
    assert any((held[name] - wanted[name]).abs().max() > 1e-3 for name in wanted)
    for name, value in wanted.items():
        assert torch.equal(found[0][name], found[1][name])
        assert (found[0][name] - value).abs().max() < 1e-6


def test_processes_with_other_rows_are_told(tmp_path):
    run_in_processes(2, share_other_rows, tmp_path, timeout=60)
    said = [(tmp_path / f"{i}.txt").read_text() for i in range(2)]
    assert all("do not have the same data" in text for text in said)
