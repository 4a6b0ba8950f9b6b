"""What each process does in test_fits.py."""

import os
import signal
from dataclasses import replace

import torch
from safetensors.torch import save_file
from toys import TokenMean

from fusemix_core.aligners import auto
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.data.facts import Fact
from fusemix_core.gathering import rank
from fusemix_core.interfaces import (
    Adapter,
    Callback,
    FitContext,
    Objective,
    PairedLatents,
    ResidentLatents,
)
from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.paired import ResidentTokens
from fusemix_core.registry import registry


class Uneven(Adapter):
    """A linear map, and a part that is never used."""

    def __init__(self, dim_in, dim_out):
        super().__init__()
        self.out = torch.nn.Linear(dim_in, dim_out)
        self.never = torch.nn.Linear(3, 3)

    def forward(self, latents):
        return self.out(latents)


class Whole(Objective):
    """Knows nothing of processes; right only if it is given all rows of the batch."""

    def forward(self, step):
        x, y = (torch.nn.functional.normalize(e, dim=1) for e in step.embeddings.values())
        s = 10 * x @ y.T
        return (s.logsumexp(1) + s.logsumexp(0)).mean() / 2 - s.diagonal().mean()


def spread(unpaired):
    """Of the unpaired items, each weighted by its latents: which are the same in all processes."""
    rows = [torch.nn.functional.normalize(x, dim=1) * y[:, :1] for x, y in unpaired.values()]
    return sum(x.mean(0).square().sum() for x in rows)


class Apart(InfoNCE):
    """Gathers the others' pairs itself."""

    uses = ("unpaired",)

    def forward(self, step):
        return super().forward(step) + spread(step.unpaired)


class WholeApart(Whole):
    uses = ("unpaired",)

    def forward(self, step):
        return super().forward(step) + spread(step.unpaired)


class Spread(Objective):
    """Another objective, and the unpaired items spread."""

    uses = ("unpaired",)

    def __init__(self, *, objective="infonce", options={}):  # noqa: B006
        super().__init__()
        self.objective = registry.build("objective", Part(objective, options))
        self.uses = (*self.objective.uses, *type(self).uses)

    def start(self, *args):
        self.objective.start(*args)

    def forward(self, step):
        return self.objective(step) + spread(step.unpaired)


BASE = Recipe(
    name="small",
    aligner=Part("gradient"),
    dim=6,
    adapter=Part("mlp", {"blocks": 1, "expansion": 2.0, "dropout": 0.0}),
    mixup=Part("fusemix", {"schedule": "cosine", "alpha_max": 0.5}),
    objective=Part("infonce"),
    training=Training(
        epochs=2, batch_size=15, lr=3e-3, warmup_steps=2, clip_norm=1.0, ema=0.9, weight_decay=0.1
    ),
)
RECIPES = {
    "infonce": BASE,
    "siglip": replace(BASE, objective=Part("siglip", {"shared": "positive"})),
    "an objective that gathers nothing": replace(BASE, objective=Part("whole")),
    "unused parameters": replace(BASE, adapter=Part("uneven")),
    "from a closed form": replace(
        BASE, dim=None, start=Part("cca", {"landmarks": 8}), adapter=Part("kernel")
    ),
    "unpaired items": replace(
        BASE, objective=Part("apart"), training=replace(BASE.training, unpaired=5)
    ),
    "unpaired items, whole": replace(
        BASE, objective=Part("whole-apart"), training=replace(BASE.training, unpaired=2)
    ),
    "unpaired items and a teacher": replace(
        BASE,
        objective=Part("klot", {"teacher_options": {"landmarks": 0}, "tolerance": 0.0}),
        training=replace(BASE.training, unpaired=5),
    ),
    "auto": replace(
        BASE,
        dim=None,
        aligner=Part("auto", {"budget": "8 steps", "landmarks": 0, "dim": 2}),
        adapter=Part("wide", {"hidden": 16, "dropout": 0.0}),
        training=replace(BASE.training, batch_size=10, lr=0.05, evaluate_steps=2, patience=9),
    ),
    "infonce in float32": BASE,
    "siglip in float32": replace(BASE, objective=Part("siglip")),
    "three modalities with gaps": BASE,
    "three modalities with gaps, siglip": replace(BASE, objective=Part("siglip")),
    "three modalities with gaps, gram": replace(BASE, objective=Part("gram")),
    "three modalities with gaps, in float32": BASE,
    "three modalities with gaps, gram in float32": replace(BASE, objective=Part("gram")),
    "a weight for each row": replace(BASE, mixup=Part("per-sample")),
    "along great circles": replace(BASE, mixup=Part("geodesic")),
    "drawn partners": replace(BASE, mixup=Part("permuted")),
    "tokens of unequal number": replace(
        BASE, adapter=Part("token-mean"), objective=Part("structure", {"warmup": 1})
    ),
    "trust, averaged adapters, a queue": replace(
        BASE, objective=Part("hammer", {"queue": 20, "warmup": 2})
    ),
    "three levels, trust and unpaired items": replace(
        BASE,
        objective=Part(
            "spread",
            {
                "objective": "structure",
                "options": {"objective": "hammer", "options": {"queue": 20}, "warmup": 1},
            },
        ),
        training=replace(BASE.training, unpaired=5),
    ),
    "three levels with a teacher": replace(
        BASE,
        objective=Part(
            "spread",
            {
                "objective": "klot",
                "options": {
                    "objective": "hammer",
                    "options": {"queue": 20},
                    "teacher_options": {"landmarks": 0},
                    "tolerance": 0.0,
                },
            },
        ),
        training=replace(BASE.training, unpaired=5),
    ),
    "fewer rows than processes": replace(
        BASE, training=replace(BASE.training, batch_size=2, max_steps=1)
    ),
}


FEW = 10
"""Pairs that `auto` trains a network with."""

IN_FLOAT32 = (
    "auto",
    "from a closed form",
    "unpaired items and a teacher",
    "three levels with a teacher",
)


def latents(gaps=False):
    """Both splits of a little dataset in float64, of which some rows share an item."""
    g = torch.Generator().manual_seed(3)
    cause = torch.randn(110, 5, generator=g, dtype=torch.float64)
    tables = {}
    for m, width in (("a", 12), ("b", 9), ("c", 7))[: 3 if gaps else 2]:
        x = cause @ torch.randn(5, width, generator=g, dtype=torch.float64)
        tables[m] = ResidentLatents(x + 0.3 * torch.randn(x.shape, generator=g, dtype=x.dtype))
    links = torch.arange(90)[:, None].repeat(1, len(tables))
    links[5::9, 0] = links[4::9, 0][: len(links[5::9])]
    if gaps:
        links[:52, 2] = links[56:75, 1] = -1  # a batch may have no rows, or one, with a pair
        links[75:80, 0] = -1
    unpaired = {"a": torch.arange(90, 110), "b": torch.arange(95, 102)}
    train = PairedLatents(tables, links[:60], unpaired=unpaired)
    return train, PairedLatents(tables, links[60:])


def as_tokens(pairs):
    """The same pairs, whose items are one to four tokens."""
    tables = {}
    for modality, table in pairs.tables.items():
        lengths = 1 + torch.arange(len(table)) * 7 % 4
        scale = 1 + torch.arange(int(lengths.sum())) % 3
        spoken = table.latents.repeat_interleave(lengths, dim=0)
        tables[modality] = ResidentTokens(spoken * scale[:, None], lengths)
    return replace(pairs, tables=tables)


class Stop(Callback):
    """Interrupts after so many steps."""

    def __init__(self, step):
        self.step = step

    def on_step(self, step, metrics):
        if step == self.step:
            raise KeyboardInterrupt


DROPOUT = replace(BASE, adapter=Part("mlp", {**BASE.adapter.options, "dropout": 0.3}))


def fitted(recipe, **context):
    data = latents(gaps=recipe.startswith("three modalities"))
    if recipe.startswith(("trust", "three levels")):
        trust = Fact("number", (torch.arange(60) % 5 / 4).numpy())
        data = replace(data[0], facts={"trust": trust}), data[1]
    if recipe in IN_FLOAT32:  # the closed form is solved in float32
        for table in data[0].tables.values():
            table.latents = table.latents.float()
    if recipe.endswith("in float32"):
        for table in data[0].tables.values():
            table.latents = table.latents.float()
    if recipe.startswith("tokens"):
        data = [as_tokens(pairs) for pairs in data]
    recipe = DROPOUT if recipe == "dropout" else RECIPES[recipe]
    aligner = registry.build("aligner", recipe.aligner)
    found = aligner.fit(*data, recipe, FitContext(**context))
    return {f"{m}/{n}": t for m, a in found.items() for n, t in a.state_dict().items()}


def register(registry):
    """Not in the one registry of the tests' own process, which every other test sees."""
    registry.add_component("adapter", "uneven", Uneven)
    registry.add_component("adapter", "token-mean", TokenMean)
    registry.add_component("objective", "whole", Whole)
    registry.add_component("objective", "apart", Apart)
    registry.add_component("objective", "whole-apart", WholeApart)
    registry.add_component(
        "objective", "spread", Spread, wraps="objective", objective="infonce", options={}
    )


class Die(Callback):
    """Kills its process after so many steps."""

    def __init__(self, step):
        self.step = step

    def on_step(self, step, metrics):
        if step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def killed_fit(folder):
    """A fit with dropout whose first process is killed in its fourth step, after an evaluation."""
    try:
        fitted("dropout", checkpoints=folder / "checkpoints", callbacks=[Die(4)])
    except RuntimeError:  # the first process is gone
        assert rank() > 0


def stopped_fit(folder):
    """A fit with dropout that goes on to its end, and the same one stopped in its third step."""
    save_file(fitted("dropout"), folder / f"whole-{rank()}.safetensors")
    try:
        fitted("dropout", checkpoints=folder / "checkpoints", callbacks=[Stop(3)])
    except KeyboardInterrupt:
        assert rank() == 0
    except RuntimeError:  # the first process has left
        assert rank() > 0


def resumed_fit(folder):
    found = fitted("dropout", checkpoints=folder / "checkpoints", resume=True)
    save_file(found, folder / f"resumed-{rank()}.safetensors")


def share_fits(folder):
    """A fit of each recipe."""
    register(registry)
    auto.LEAST = FEW
    found = {f"{r}/{n}": t for r in RECIPES for n, t in fitted(r).items()}
    save_file(found, folder / f"{rank()}.safetensors")
