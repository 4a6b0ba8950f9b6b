"""Closed forms over processes: each sweeps its share, and all have the moments of one process."""

import pytest
import torch
from distributed.processes import run_in_processes
from distributed.share_moments import CASES, CHUNK, FITS, fitted, found, pairs, share_moments
from safetensors.torch import load_file

from fusemix_core.aligners import share as shares
from fusemix_core.aligners.share import Share


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.long)])
def theirs(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("moments")
    run_in_processes(request.param, share_moments, folder)
    return [load_file(folder / f"{i}.st") for i in range(request.param)]


def of(parts, name):
    return {k.removeprefix(f"{name}/"): v for k, v in parts.items() if k.startswith(f"{name}/")}


@pytest.mark.parametrize("name", CASES)
def test_moments_are_those_of_one_process(name, theirs):
    wanted = found(name)
    for parts in theirs:
        assert of(parts, name).keys() == wanted.keys()
        for key, value in of(parts, name).items():
            torch.testing.assert_close(value, wanted[key], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FITS)
def test_a_closed_form_is_that_of_one_process(name, theirs):
    wanted = fitted(name)
    for parts in theirs:
        for key, value in of(parts, f"fit {name}").items():
            assert torch.equal(value, of(theirs[0], f"fit {name}")[key])
            torch.testing.assert_close(value, wanted[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 20, 500])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_shares_are_whole_chunks_of_all_rows(monkeypatch, processes, count):
    data, rows = pairs(count), []
    monkeypatch.setattr("fusemix_core.gathering.processes", lambda: processes)
    monkeypatch.setattr(shares, "processes", lambda: processes)
    for number in range(processes):
        monkeypatch.setattr("fusemix_core.gathering.rank", lambda number=number: number)
        monkeypatch.setattr(shares, "rank", lambda number=number: number)
        share = Share.of(data, CHUNK)
        assert share.start == len(rows)
        rows += share.pairs.links[:, 0].tolist()
        last = len(rows) == count
        assert last or len(rows) % CHUNK == 0
        assert share.so_far(len(share.pairs)) == count
    assert sorted(rows) == list(range(count))
    assert share.ends[share.first] > 0
