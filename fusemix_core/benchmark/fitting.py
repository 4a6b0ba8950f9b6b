"""One fit of a benchmark: a method on latents, chosen on validation, measured once on test."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.benchmark.latents import Classes, Splits
from fusemix_core.config import Part, Recipe
from fusemix_core.evaluation.retrieval import KS, retrieval
from fusemix_core.evaluation.zeroshot import class_embeddings, zero_shot
from fusemix_core.interfaces import Adapter, Callback, FitContext, Padded, Scorer, input_of
from fusemix_core.registry import registry
from fusemix_core.runs.embeddings import embed_split
from fusemix_core.runs.facts import check_facts
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.rows import training_rows
from fusemix_core.runs.scorers import BANK_MOST, choose_scorer


def within(recipe: Recipe, batch: int | None, budget: int | None, rows: int) -> Recipe:
    """The recipe with a batch, and steps for so many pairs in all, on `rows` training rows.

    Nothing changes in one that has no training. Mixups that halve a batch are counted after it.
    """
    training = recipe.training
    if training is None:
        return recipe
    size = batch or training.batch_size
    if budget is not None:
        mixup = registry.build("mixup", recipe.mixup or Part("none"))
        seen = min(size or rows, max(rows // mixup.rows_per_pair, 1))
        steps = max(budget // seen, 1)
        most = steps if training.max_steps is None else min(steps, training.max_steps)
        training = replace(training, max_steps=most)
    return replace(recipe, training=replace(training, batch_size=size))


@dataclass
class _Steps(Callback):
    """How many steps were taken."""

    count: int = 0

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.count = step


def fit(
    recipe: Recipe,
    splits: Splits,
    seed: int,
    device: torch.device,
    zero_shot: Mapping[str, Classes],
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Plain data: `seconds` and `steps` of the fit, `validation` and `test` recalls by scorer and
    direction, the `scorer` chosen on validation (whatever the recipe says, so that methods differ
    in their maps alone), `zero_shot` top-1 by set and scorer; shares in percent."""
    check_facts(recipe, splits["train"].facts)
    aligner = registry.build("aligner", recipe.aligner)
    steps = _Steps()
    context = FitContext(device=device, seed=seed, callbacks=[steps, *callbacks])
    began = time.perf_counter()
    given = splits["train"]
    given = given.select(training_rows(recipe, given, context, Reporter()).sort().values)
    adapters = aligner.fit(given, splits["validation"], recipe, context)
    seconds = time.perf_counter() - began
    train = embed_split(adapters, splits["train"], device, most=BANK_MOST)
    validation = embed_split(adapters, splits["validation"], device)
    test = embed_split(adapters, splits["test"], device)
    scorers = {}
    for _, spec in registry.all_components("scorer"):
        scorers[spec.name] = registry.build("scorer", Part(spec.name))
        scorers[spec.name].fit(train.embeddings)
    chosen, _ = choose_scorer(replace(recipe, scorer=None), train, validation)
    measured = {
        split: {n: recalls(found.embeddings, found.links, s) for n, s in scorers.items()}
        for split, found in (("validation", validation), ("test", test))
    }
    return {
        "seconds": round(seconds, 3),
        "steps": steps.count,
        "dim": next(iter(test.embeddings.values())).shape[1],
        "scorer": chosen.name,
        **measured,
        "zero_shot": {
            name: {n: named(adapters, classes, s, device) for n, s in scorers.items()}
            for name, classes in zero_shot.items()
        },
    }


def recalls(embeddings: Mapping[str, Tensor], links: Tensor, scorer: Scorer) -> dict[str, Any]:
    """Recalls in percent: means over directions, of R@1 with its bootstrap interval over linked
    groups of items, and of each direction."""
    whole = retrieval(embeddings, links, scorer.score)
    found, interval = whole["directions"], whole["mean_r1_interval"]
    each = {name: {f"r{k}": _short(d[f"r{k}"]) for k in KS} for name, d in found.items()}
    means = {f"r{k}": _short(sum(d[f"r{k}"] for d in found.values()) / len(found)) for k in KS}
    return {
        **means,
        "r1_interval": interval and [_short(v) for v in interval],
        "directions": each,
    }


@torch.inference_mode()
def named(
    adapters: Mapping[str, Adapter], classes: Classes, scorer: Scorer, device: torch.device
) -> dict[str, float]:
    """Zero-shot `top1` and `mean_per_class` in percent."""

    def embed(modality: str, latents: Tensor | Padded) -> Tensor:
        taken = input_of(adapters[modality], latents).to(device)
        return normalize(adapters[modality](taken), dim=1).float().cpu()

    of_classes = class_embeddings(
        lambda _: embed(classes.text, classes.prompts), classes.names, classes.templates
    )
    found = zero_shot(
        embed(classes.modality, classes.items),
        classes.labels,
        of_classes,
        classes.names,
        scorer.score,
        query=classes.modality,
        target=classes.text,
        resamples=0,
    )
    return {k: _short(found[k]) for k in ("top1", "mean_per_class")}


def _short(value: float) -> float:
    return value if math.isnan(value) else round(value, 3)
