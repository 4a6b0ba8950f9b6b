"""Fits over 3 processes, in the long form over 2 and 4: the adapters of one process."""

import shutil

import pytest
import torch
from distributed.processes import run_in_processes
from distributed.share_fits import (
    FEW,
    IN_FLOAT32,
    RECIPES,
    fitted,
    killed_fit,
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


@pytest.fixture(
    scope="module",
    params=[pytest.param(2, marks=pytest.mark.long), 3, pytest.param(4, marks=pytest.mark.long)],
)
def found(request, tmp_path_factory):
    """The adapters that each process ended with, by `recipe/modality/name`."""
    folder = tmp_path_factory.mktemp("fits")
    run_in_processes(request.param, share_fits, folder)
    return [load_file(folder / f"{i}.safetensors") for i in range(request.param)]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_adapters_are_one_processs(recipe, found):
    for name, wanted in fitted(recipe).items():
        parts = [process[f"{recipe}/{name}"] for process in found]
        assert all(torch.equal(part, parts[0]) for part in parts)
        tolerance = 1e-4 if recipe in IN_FLOAT32 else 1e-6 if "float32" in recipe else 1e-12
        torch.testing.assert_close(parts[0], wanted, rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.long)])
def test_a_fit_that_ends_early_and_is_resumed_is_never_ended(count, tmp_path):
    run_in_processes(count, stopped_fit, tmp_path)
    assert (tmp_path / "checkpoints/step-3").exists()
    goes_on_as_if_never_ended(count, tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    run_in_processes(count, killed_fit, tmp_path, killed=[0])
    assert (tmp_path / "checkpoints/step-2").exists()
    goes_on_as_if_never_ended(count, tmp_path)


def goes_on_as_if_never_ended(count, folder):
    run_in_processes(count, resumed_fit, folder)
    whole, *others = (
        load_file(folder / f"{name}-{i}.safetensors")
        for name in ("whole", "resumed")
        for i in range(count)
    )
    for name, wanted in whole.items():
        assert all(torch.equal(other[name], wanted) for other in others)
