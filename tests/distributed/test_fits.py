"""Fits over 2 and 3 processes: the adapters of one process."""

import pytest
import torch
from distributed.processes import run_in_processes
from distributed.share_fits import (
    FEW,
    IN_FLOAT32,
    RECIPES,
    fitted,
    register,
    resumed_fit,
    share_fits,
    stopped_fit,
)
from safetensors.torch import load_file

from fusemix_core.aligners import auto, gradient
from fusemix_core.registry import Registry


@pytest.fixture(autouse=True)
def components(monkeypatch):
    own = Registry()
    register(own)
    monkeypatch.setattr(gradient, "registry", own)
    monkeypatch.setattr(auto, "LEAST", FEW)


@pytest.fixture(scope="module", params=[2, 3, 4])
def found(request, tmp_path_factory):
    """The adapters that each process ended with, by `recipe/modality/name`."""
    folder = tmp_path_factory.mktemp("fits")
    run_in_processes(request.param, share_fits, folder)
    return [load_file(folder / f"{i}.safetensors") for i in range(request.param)]


@pytest.mark.parametrize("recipe", RECIPES)
def test_adapters_are_one_processs(recipe, found):
    for name, wanted in fitted(recipe).items():
        parts = [process[f"{recipe}/{name}"] for process in found]
        assert all(torch.equal(part, parts[0]) for part in parts)
        tolerance = 1e-4 if recipe in IN_FLOAT32 else 1e-6
        torch.testing.assert_close(parts[0], wanted, rtol=0, atol=tolerance)


def test_stopped_and_resumed_is_never_stopped(tmp_path):
    run_in_processes(2, stopped_fit, tmp_path)
    assert (tmp_path / "checkpoints/step-3").exists()
    run_in_processes(2, resumed_fit, tmp_path)
    whole, *others = (
        load_file(tmp_path / f"{name}-{i}.safetensors")
        for name in ("whole", "resumed")
        for i in range(2)
    )
    for name, wanted in whole.items():
        assert all(torch.equal(other[name], wanted) for other in others)
