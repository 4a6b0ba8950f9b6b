"""An objective that takes latents, over two processes: one process's loss and gradients."""

import pytest
import torch
from distributed.processes import run_in_processes
from distributed.share_latents import INNER, results, share_latents
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    run_in_processes(2, share_latents, folder)
    return [load_file(folder / f"{i}.safetensors") for i in range(2)]


@pytest.mark.parametrize("name", INNER)
def test_value_and_gradients_are_one_processs(name, found):
    for key, wanted in results(name).items():
        parts = [process[f"{name}/{key}"] for process in found]
        got = parts[0] if key == "loss" else torch.cat(parts) / 2
        assert (got - wanted).abs().max() <= 1e-9 * wanted.abs().max().clamp(min=1), key
