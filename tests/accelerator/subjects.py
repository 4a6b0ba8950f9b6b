"""What runs on the emulated device: small pairs, training steps, fits, scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.adapters.rows import for_adapters
from fusemix_core.aligners.alignment import Alignment
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.data.facts import Fact
from fusemix_core.engine.feed import feed
from fusemix_core.engine.metrics import StepMetrics
from fusemix_core.engine.plan import plan_steps
from fusemix_core.engine.randomness import seeded
from fusemix_core.engine.state import TrainState, train_step
from fusemix_core.engine.tables import on_device
from fusemix_core.interfaces import FitContext, PairedLatents, ResidentLatents
from fusemix_core.numerics import Precision
from fusemix_core.paired import ResidentTokens
from fusemix_core.registry import registry

WIDTHS = {"image": 10, "text": 8, "audio": 6}
OPTIONS: dict[str, dict[str, Any]] = {
    "hammer": {"queue": 20, "warmup": 3},
    "structure": {"warmup": 2},
    "klot": {"teacher_options": {"landmarks": 0}},
    "siglip": {"shared": "positive"},
    "token-projectors": {"dropout": 0.0},
    "sharelock": {"hidden": 16},
}
"""Of components whose own options are for larger batches, draw, or would leave code untouched."""


NEED_FILES = {"arl"}
"""Components that read a file of the user's; tests of their own make one."""


def names(kind: str) -> list[str]:
    """All registered components of a kind."""
    every = {spec.name for _, spec in registry.all_components(kind)}
    return sorted(every - NEED_FILES)


def pairs(gaps: bool = False, rows: int = 72, tokens: bool = False) -> PairedLatents:
    """Latents of one cause in float16. With gaps: a third modality, entries that are missing, and
    images that two rows share."""
    draw = torch.Generator().manual_seed(0)
    cause = torch.randn(rows, 5, generator=draw)
    tables = {}
    for modality, width in list(WIDTHS.items())[: 2 + gaps]:
        x = cause @ torch.randn(5, width, generator=draw) + torch.randn(rows, width, generator=draw)
        tables[modality] = ResidentLatents(x.half())
    if tokens:
        lengths = 1 + torch.arange(rows) % 3
        for modality, table in tables.items():
            spoken = table.latents.repeat_interleave(lengths, dim=0)
            tables[modality] = ResidentTokens(spoken, lengths)
    links = torch.arange(rows)[:, None].repeat(1, len(tables))
    if gaps:
        links[:, 0] = links[:, 0] // 2
        links[::3, 2], links[1::6, 1], links[5::7, 0] = -1, -1, -1
    trust = Fact("number", np.linspace(0, 1, rows).astype(np.float32))
    return PairedLatents(tables, links, {"trust": trust})


class Steps:
    """Training by gradient, a step at a time."""

    def __init__(
        self,
        device: torch.device,
        *,
        objective: str = "infonce",
        mixup: str = "fusemix",
        optimiser: str = "adamw",
        adapter: str = "linear",
        precision: str = "float32",
        gaps: bool = False,
        train: PairedLatents | None = None,
    ) -> None:
        tokens = "tokens" in registry.uses("objective", Part(objective))
        train = train or pairs(gaps, tokens=tokens)
        adapter = "token-projectors" if tokens else adapter
        part = Part(adapter, OPTIONS.get(adapter, {}))
        self.device = device
        self.mixup = registry.build("mixup", Part(mixup))
        training = Training(epochs=50, batch_size=8, clip_norm=1.0, ema=0.9, lr=1e-2)
        self.plan = plan_steps(len(train), self.mixup.rows_per_pair, training)
        with seeded(0, torch.device("cpu")):
            made = registry.build("objective", Part(objective, OPTIONS.get(objective, {})))
            adapters = {
                m: registry.build("adapter", part, t.shape[-1], 6) for m, t in train.tables.items()
            }
            made.start(adapters, train, train, FitContext())
        held, _ = on_device(for_adapters(train, adapters), train, device)
        self.held = held
        for module in (*adapters.values(), made):
            module.to(device).train()
        fit = Alignment(adapters, made, held, device=device)
        fit.precision = Precision(precision, device.type)
        self.state = TrainState.new(fit, training, 0, Part(optimiser))
        self.batches = feed(held, self.plan, 0, device, blocks=False, mixup=self.mixup)

    def step(self) -> StepMetrics:
        """What one step reports."""
        training = self.plan.training
        how = {"clip_norm": training.clip_norm, "ema": training.ema}
        with self.state.fit.precision.step():
            metrics = train_step(self.state, next(self.batches), self.mixup, 1e-2, **how)
        self.state.index += 1
        return metrics

    def run(self, count: int) -> list[StepMetrics]:
        return [self.step() for _ in range(count)]

    def weights(self) -> list[Tensor]:
        """Copies of all weights, and of what the optimiser keeps of them."""
        optimiser = self.state.optimiser
        kept = [x for group in optimiser.param_groups for x in group["params"]]
        kept += [x for own in optimiser.state.values() for x in own.values()]
        return [x.detach().clone().cpu() for x in kept]


def fitted(aligner: str, device: torch.device) -> dict[str, Tensor]:
    """The embeddings that an aligner's adapters give the pairs they were fitted on."""
    data = pairs()
    train, validation = data.select(torch.arange(48)), data.select(torch.arange(48, 72))
    recipe = Recipe(
        "small",
        Part(aligner, {"landmarks": 20} if aligner == "cca" else {}),
        dim=4,
        adapter=Part("linear"),
        mixup=Part("fusemix"),
        objective=Part("infonce"),
        training=Training(epochs=2, batch_size=8, precision="float32"),
    )
    fit = registry.build("aligner", recipe.aligner).fit
    adapters = fit(train, validation, recipe, FitContext(device=device))
    every = torch.arange(48)
    return {m: a(train.tables[m].rows(every)).detach() for m, a in adapters.items()}
