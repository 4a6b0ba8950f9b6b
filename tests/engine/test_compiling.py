"""Compiled adapters: the same step, and as they were wherever they can't be compiled."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fusemix_core.adapters.mlp import MlpAdapter
from fusemix_core.adapters.standardised import ROOT
from fusemix_core.adapters.wide import WideAdapter
from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.config import Part, Training
from fusemix_core.engine import loop
from fusemix_core.engine.compiling import AUTO_STEPS, Compiling, pays
from fusemix_core.engine.plan import Plan
from fusemix_core.interfaces import Adapter, Callback, FitContext
from fusemix_core.numerics import Precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("setting", "device", "steps", "wanted"),
    [
        ("auto", CUDA, AUTO_STEPS, True),
        ("auto", CUDA, AUTO_STEPS - 1, False),
        ("auto", CUDA, None, False),
        ("auto", CPU, AUTO_STEPS, False),
        ("off", CUDA, AUTO_STEPS, False),
        ("on", CPU, 1, True),
    ],
)
def test_auto_compiles_on_a_gpu_when_there_are_many_steps(setting, device, steps, wanted):
    assert pays(setting, device, steps) is wanted


class Branching(Adapter):
    """Can't be one graph: what it does depends on values."""

    def __init__(self, dim_in, dim_out):
        super().__init__()
        self.out = nn.Linear(dim_in, dim_out)

    def forward(self, latents):
        return self.out(latents if latents.sum() > 0 else -latents)


def compiling(adapters, notes, backend="eager", **training):
    plan = Plan(Training(batch_size=6, **training), 6, 1)
    dims = dict.fromkeys(adapters, 8)
    return Compiling(adapters, dims, plan, Precision(), notes.append, backend)


def test_an_adapter_that_is_no_one_graph_stays_as_it_is_and_is_reported():
    adapters, notes = {"image": Branching(8, 4), "text": nn.Linear(8, 4)}, []
    before, state = torch.get_rng_state(), adapters["image"].state_dict()
    forms = compiling(adapters, notes)
    assert [adapter for adapter, _ in forms.forms] == [adapters["text"]]
    assert len(notes) == 1 and notes[0].startswith("The image adapter isn't compiled: ")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for a in adapters.values() for p in a.parameters())
    assert adapters["image"].state_dict().keys() == state.keys()


def test_only_steps_are_compiled():
    adapter, notes, x = nn.Linear(8, 4), [], torch.randn(6, 8)
    forms = compiling({"text": adapter}, notes)
    called = []
    forms.forms = [(adapter, lambda given: called.append(given) or given[:, :4])]
    with forms.steps():
        assert torch.equal(adapter(x), x[:, :4])
    assert len(called) == 1 and adapter(x).shape == (6, 4) and len(called) == 1


def test_a_fit_uses_what_is_compiled_in_steps_alone(split, recipe, monkeypatch):
    made, told = [], []

    class Forms(Compiling):
        def __init__(self, *given):
            super().__init__(*given, backend="eager")
            made.append(self)

    class Told(Callback):
        def on_stage(self, text):
            told.append(text)

    monkeypatch.setattr(loop, "Compiling", Forms)
    settings = recipe(compile="on", epochs=1, adapter=Part("linear"))
    compiled = GradientAligner().fit(*split(40, 10), settings, FitContext(callbacks=[Told()]))
    plain = GradientAligner().fit(
        *split(40, 10), recipe(epochs=1, adapter=Part("linear")), FitContext()
    )
    assert len(made) == 1 and len(made[0].forms) == 2 and told == []
    for modality, adapter in plain.items():
        for name, value in adapter.state_dict().items():
            torch.testing.assert_close(compiled[modality].state_dict()[name], value)
    assert all(a._compiled_call_impl is None for a in compiled.values())


@pytest.mark.long
@pytest.mark.parametrize("name", ["mlp", "linear", "wide"])
def test_compiled_adapters_are_the_adapters(name):
    """By inductor."""
    torch.manual_seed(0)
    made = {
        "mlp": MlpAdapter(8, 4, blocks=2),
        "linear": nn.Linear(8, 4),
        "wide": WideAdapter(8, 4, hidden=16, dropout=0.0),
    }
    adapter, notes, x = made[name], [], torch.randn(6, 8)
    if name == "wide":
        adapter.power.fill_(ROOT)
    forms = compiling({"text": adapter}, notes, backend="inductor")
    assert notes == []
    wanted = adapter(x)
    with forms.steps():
        found = adapter(x)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
