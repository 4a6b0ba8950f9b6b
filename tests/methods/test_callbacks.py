"""What a fit inside another reports reaches the callbacks of the outer one."""

import torch
from fusemix_structure.layers import BestLayersAligner

from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.context import EVENTS
from fusemix_core.interfaces import Callback, FitContext, PairedLatents, ResidentLatents


class Heard(Callback):
    """Every event, by name, and the metrics of evaluations."""

    def __init__(self):
        self.events, self.metrics = [], []
        for event in EVENTS:
            setattr(self, event, lambda *given, event=event: self._hear(event, *given))

    def _hear(self, event, *given):
        self.events.append(event)
        if event == "on_evaluation":
            self.metrics.append(given[1])


def split(layers=False):
    draw = torch.Generator().manual_seed(0)
    cause = torch.randn(80, 4, generator=draw)
    tables = {}
    for m, d in (("image", 6), ("text", 5)):
        x = cause @ torch.randn(4, d, generator=draw)
        tables[m] = ResidentLatents(torch.stack([torch.randn_like(x), x], 1) if layers else x)
    links = torch.arange(80)[:, None].repeat(1, 2)
    return PairedLatents(tables, links[:60]), PairedLatents(tables, links[60:])


def test_a_closed_form_behind_the_choice_of_layers_reports_its_passes_and_the_choice():
    heard = Heard()
    aligner = BestLayersAligner(aligner="cca", sample=50)
    context = FitContext(callbacks=[heard])
    aligner.fit(*split(layers=True), Recipe("r", Part("best-layers")), context)
    assert {"on_pairs", "on_evaluation"} <= set(heard.events)
    assert any("layer" in name for metrics in heard.metrics for name in metrics)


def test_a_start_reports_its_passes_and_evaluations_and_the_training_its_own():
    heard = Heard()
    recipe = Recipe(
        "r",
        Part("gradient"),
        start=Part("cca", {"landmarks": 8}),
        adapter=Part("kernel"),
        objective=Part("infonce"),
        training=Training(epochs=1, batch_size=20),
    )
    GradientAligner().fit(*split(), recipe, FitContext(callbacks=[heard]))
    assert heard.events.count("on_start") == heard.events.count("on_end") == 1
    assert heard.events.index("on_pairs") < heard.events.index("on_start")
    assert heard.events.count("on_step") == 3


def test_a_callback_that_passes_on_some_events_passes_on_no_other():
    heard = Heard()
    some = heard.through(only=("on_pairs", "on_evaluation"), added={"layer": 3})
    for event, given in (
        ("on_start", (3,)),
        ("on_step", (1, {})),
        ("on_pairs", (1, 2)),
        ("on_evaluation", (1, {"score": 0.5})),
        ("on_end", ()),
    ):
        getattr(some, event)(*given)
    assert heard.events == ["on_pairs", "on_evaluation"]
    assert heard.metrics == [{"score": 0.5, "layer": 3}]
