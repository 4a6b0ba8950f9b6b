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
from fusemix_core.engine import compiling as compiling_module
from fusemix_core.engine import loop
from fusemix_core.engine.compiling import AUTO_STEPS, GRAPH_ROWS, Compiling, graphs_pay, pays
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


# -- CUDA graphs: what is around them, by a compiler that writes over its outputs -----------------


@pytest.mark.parametrize(
    ("device", "rows", "wanted"),
    [(CUDA, GRAPH_ROWS, True), (CUDA, GRAPH_ROWS + 1, False), (CPU, 8, False)],
)
def test_small_batches_on_a_gpu_are_graphs(device, rows, wanted):
    assert graphs_pay(device, rows) is wanted


class Graphs:
    """`torch.compile`, whose `reduce-overhead` has one output for all calls, as CUDA graphs have:
    a step may not begin without a mark. `wrong` is added by replays."""

    def __init__(self, monkeypatch, refuses="", wrong=0.0):
        self.refuses, self.wrong, self.modes, self.marks = refuses, wrong, [], 0
        monkeypatch.setattr(compiling_module, "graphs_pay", lambda device, rows: True)
        monkeypatch.setattr(torch, "compile", self.compile)
        monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", self.mark)

    def mark(self):
        self.marks += 1

    def compile(self, call, *, fullgraph, backend, mode=None):
        self.modes.append(mode)
        if mode is None:
            return call
        if self.refuses:
            raise RuntimeError(self.refuses)
        output, calls = {}, []

        def replayed(x):
            assert self.marks > len(calls)
            calls.append(1)
            found = call(x)
            memory = output.setdefault("memory", torch.empty_like(found, requires_grad=False))
            with torch.no_grad():
                memory.copy_(found + (self.wrong if len(calls) > 2 else 0))
            return found - found.detach() + memory

        return replayed


def test_a_graph_is_warmed_up_recorded_and_replayed_before_it_is_used(monkeypatch):
    graphs, adapter, notes = Graphs(monkeypatch), nn.Linear(8, 4), []
    forms = compiling({"text": adapter}, notes)
    assert graphs.modes == ["reduce-overhead"] and graphs.marks == 3 and notes == []
    x, y = torch.randn(2, 6, 8)
    with forms.steps():
        first = adapter(x)
    with forms.steps():
        second = adapter(y)
    assert graphs.marks == 5  # once a step
    torch.testing.assert_close(first, adapter(x))  # not written over by the second
    torch.testing.assert_close(second, adapter(y))


@pytest.mark.parametrize(
    ("fault", "why"),
    [({"refuses": "no graph\nof this"}, "no graph"), ({"wrong": 1.0}, "gives other numbers")],
)
def test_what_is_no_graph_is_compiled_without_one_and_reported(monkeypatch, fault, why):
    graphs, adapter, notes = Graphs(monkeypatch, **fault), nn.Linear(8, 4), []
    forms = compiling({"text": adapter}, notes)
    assert graphs.modes == ["reduce-overhead", None] and len(forms.forms) == 1
    assert len(notes) == 1 and notes[0].startswith("The text adapter isn't a CUDA graph: ")
    assert why in notes[0] and "\n" not in notes[0]
    before = graphs.marks
    with forms.steps():
        adapter(torch.randn(6, 8))
    assert graphs.marks == before


def test_a_fit_by_graphs_is_the_fit(split, recipe, monkeypatch):
    settings = {"epochs": 2, "adapter": Part("linear")}
    plain = GradientAligner().fit(*split(40, 10), recipe(**settings), FitContext())
    graphs = Graphs(monkeypatch)
    found = GradientAligner().fit(*split(40, 10), recipe(compile="on", **settings), FitContext())
    assert graphs.modes == ["reduce-overhead"] * 2
    for modality, adapter in plain.items():
        for name, value in adapter.state_dict().items():
            torch.testing.assert_close(found[modality].state_dict()[name], value)


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
