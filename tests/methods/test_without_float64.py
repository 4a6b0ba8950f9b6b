"""Apple's mps has no float64: what needs it goes to the CPU there."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fusemix_core import batch
from fusemix_core.config import Part
from fusemix_core.data.facts import Fact
from fusemix_core.devices import exact_device, resolve_device, widest_float
from fusemix_core.interfaces import FitContext, PairedLatents, ResidentLatents
from fusemix_core.objectives import tiles
from fusemix_core.registry import registry
from fusemix_core.runs.config import find_recipe
from fusemix_core.testing.steps import embeddings_of, links_of, splits_of, step_of

MPS = torch.device("mps")


def pairs(rows):
    draw = torch.Generator().manual_seed(0)
    cause = torch.randn(80, 5, generator=draw)
    tables = {
        m: ResidentLatents(cause @ torch.randn(5, d, generator=draw))
        for m, d in (("image", 8), ("text", 6))
    }
    return PairedLatents(tables, torch.arange(80)[rows, None].repeat(1, 2))


def test_exact_work_goes_to_the_cpu_of_an_apple_machine_only():
    assert exact_device(MPS) == torch.device("cpu") and widest_float(MPS) == torch.float32
    for device in (torch.device("cpu"), torch.device("cuda", 1)):
        assert exact_device(device) == device and widest_float(device) == torch.float64


def test_auto_is_the_accelerator_of_an_apple_machine(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: MPS)
    assert resolve_device("auto") == MPS


CLOSED = [
    spec.name
    for dist, spec in registry.all_components("recipe")
    if find_recipe(f"{dist}/{spec.name}").training is None
    and find_recipe(f"{dist}/{spec.name}").objective is None
]


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_of_an_apple_machine_are_those_of_a_cpu(name):
    """Here is no mps: whatever were put there would raise."""
    recipe = find_recipe(name)
    aligner = registry.build("aligner", recipe.aligner)
    split = pairs(slice(0, 60)), pairs(slice(60, 80))
    there = aligner.fit(*split, recipe, FitContext(device=MPS))
    here = registry.build("aligner", recipe.aligner).fit(*split, recipe, FitContext())
    for modality, adapter in here.items():
        for key, value in adapter.state_dict().items():
            assert torch.equal(value, there[modality].state_dict()[key])


def test_the_default_is_on_an_apple_machine_what_it_is_on_a_cpu():
    recipe = find_recipe("auto", ["adapter=none"])
    split = pairs(slice(0, 60)), pairs(slice(60, 80))
    there, here = (
        registry.build("aligner", recipe.aligner).fit(*split, recipe, FitContext(device=device))
        for device in (MPS, torch.device("cpu"))
    )
    for modality, adapter in here.items():
        assert torch.equal(adapter.weight, there[modality].weight)


def test_the_closed_forms_are_there():
    assert {"cca", "kcca", "ridge", "procrustes", "csa", "asif"} <= set(CLOSED)


class NoFloat64(TorchDispatchMode):
    """A device without float64."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
                raise TypeError(f"{function} gave float64")
        return out


ELSEWHERE = {"gram"}
"""Objectives that go to the CPU for their float64."""
NEED_FILES = {"arl"}
"""Objectives that read a file of the user's."""

OBJECTIVES = [spec.name for _, spec in registry.all_components("objective")]


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - ELSEWHERE - NEED_FILES))
def test_objectives_can_do_without_float64(name, monkeypatch):
    def loss():
        embeddings = {m: x.requires_grad_() for m, x in embeddings_of().items()}
        step = step_of(embeddings, links_of())
        objective = registry.build("objective", Part(name))
        objective.start(step.adapters, *splits_of(tuple(embeddings), {}), FitContext())
        return objective, step

    monkeypatch.setattr(tiles, "widest_float", lambda device: torch.float32)
    objective, step = loss()
    with NoFloat64():
        found = objective(step)
        found.backward()
    monkeypatch.undo()
    objective, step = loss()
    assert found.item() == pytest.approx(objective(step).item(), rel=1e-4)


def test_what_has_float64_is_moved_to_apples_device_in_float32(monkeypatch):
    monkeypatch.setattr(batch, "widest_float", lambda device: torch.float32)
    facts = {"time": Fact("time", np.arange(80.0))}
    wide = pairs(slice(0, 60))
    tables = {m: ResidentLatents(table.latents.double()) for m, table in wide.tables.items()}
    made = replace(wide, tables=tables, facts=facts).batch(torch.arange(3))
    moved = [*made.latents.values(), *made.facts.values()]
    assert {x.dtype for x in moved} == {torch.float32}


def test_a_context_keeps_all_but_its_device():
    context = FitContext(device=MPS, seed=4)
    assert context.exact() == FitContext(seed=4)
