"""One fit of a benchmark: a method on latents, chosen on validation, measured once on test."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.benchmark.hits import hits_of, queries_of
from fusemix_core.benchmark.latents import Classes, Splits
from fusemix_core.benchmark.limits import shortened
from fusemix_core.benchmark.measuring import Cost, Course
from fusemix_core.config import Part, Recipe
from fusemix_core.evaluation.directions import KS, Direction, ranked
from fusemix_core.evaluation.retrieval import summed_up
from fusemix_core.evaluation.zeroshot import class_embeddings, zero_shot
from fusemix_core.interfaces import Adapter, Callback, FitContext, Padded, Scorer, input_of
from fusemix_core.registry import registry
from fusemix_core.runs.embeddings import SplitEmbeddings, embed_split
from fusemix_core.runs.facts import check_facts
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.rows import training_rows
from fusemix_core.runs.scorers import BANK_MOST, choose_scorer


def within(recipe: Recipe, batch: int | None, budget: int | None, rows: int) -> Recipe:
    """The recipe with a batch (None: its own), and steps for so many pairs in all, on `rows`
    training rows.

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


WARM_ROWS = 64


def warm_up(recipe: Recipe, splits: Splits, device: torch.device) -> None:
    """A fit of few pairs that nobody times: a process's first imports and products are slow."""
    few = {n: splits[n].select(torch.arange(len(splits[n]))[:WARM_ROWS]) for n in splits}
    if recipe.training is not None:
        recipe = replace(recipe, training=replace(recipe.training, epochs=1, batch_size=None))
    with contextlib.suppress(Exception):  # the fit itself will tell
        aligner = registry.build("aligner", recipe.aligner)
        aligner.fit(few["train"], few["validation"], recipe, FitContext(device=device))


@dataclass(frozen=True)
class Fitted:
    """Adapters, the recipe that they were fitted by, and plain data on the fit: what it cost
    (`Cost.facts`), its `steps`, `trajectory` (`Course`) and `limit`."""

    recipe: Recipe
    adapters: Mapping[str, Adapter]
    facts: dict[str, Any]


def fit(
    recipe: Recipe,
    splits: Splits,
    seed: int,
    device: torch.device,
    zero_shot: Mapping[str, Classes],
    callbacks: Sequence[Callback] = (),
    limit: float | None = None,
) -> dict[str, Any]:
    """One fit, measured: `fitted`, then `measured`."""
    found = fitted(recipe, splits, seed, device, callbacks, limit)
    return found.facts | measured(found, splits, device, zero_shot)


def fitted(
    recipe: Recipe,
    splits: Splits,
    seed: int,
    device: torch.device,
    callbacks: Sequence[Callback] = (),
    limit: float | None = None,
) -> Fitted:
    """One fit.

    Args:
        limit: The seconds, by `clock`, that a training by gradient may take; see `shortened`.
    """
    check_facts(recipe, splits["train"].facts)
    context = FitContext(device=device, seed=seed)
    given, validation = splits["train"], splits["validation"]
    given = given.select(training_rows(recipe, given, context, Reporter()).sort().values)
    facts: dict[str, Any] = {}
    if limit is not None and recipe.training is not None:
        recipe, given, facts["limit"] = shortened(recipe, given, validation, context, limit)
    aligner = registry.build("aligner", recipe.aligner)
    with Cost() as cost:
        course = Course()
        adapters = aligner.fit(
            given, validation, recipe, replace(context, callbacks=[course, *callbacks])
        )
    facts |= {**cost.facts(), "steps": course.steps, "trajectory": course.trajectory()}
    return Fitted(recipe, adapters, facts)


def validation_recall(found: Fitted, splits: Splits, device: torch.device) -> float:
    """Mean of R@1, R@5 and R@10 on validation in percent, by the scorer that does best there."""
    train = embed_split(found.adapters, splits["train"], device, most=BANK_MOST)
    validation = embed_split(found.adapters, splits["validation"], device)
    _, scorer = choose_scorer(replace(found.recipe, scorer=None), train, validation)
    recall = recalls(validation, ranked_by(validation, scorer))
    return sum(recall[f"r{k}"] for k in KS) / len(KS)


def measured(
    found: Fitted, splits: Splits, device: torch.device, zero_shot: Mapping[str, Classes]
) -> dict[str, Any]:
    """Plain data, shares in percent: `validation` and `test` recalls by scorer and direction, the
    `scorer` chosen on validation (whatever the recipe says, so that methods differ in their maps
    only), which test `queries` were `hits` by scorer, and `zero_shot` top-1 by set and scorer."""
    recipe, adapters = found.recipe, found.adapters
    train = embed_split(adapters, splits["train"], device, most=BANK_MOST)
    validation = embed_split(adapters, splits["validation"], device)
    test = embed_split(adapters, splits["test"], device)
    scorers = {}
    for _, spec in registry.all_components("scorer"):
        scorers[spec.name] = registry.build("scorer", Part(spec.name))
        scorers[spec.name].fit(train.embeddings)
    chosen, _ = choose_scorer(replace(recipe, scorer=None), train, validation)
    on_validation = {n: ranked_by(validation, s) for n, s in scorers.items()}
    on_test = {n: ranked_by(test, s) for n, s in scorers.items()}
    return {
        "dim": next(iter(test.embeddings.values())).shape[1],
        "scorer": chosen.name,
        "validation": {n: recalls(validation, d) for n, d in on_validation.items()},
        "test": {n: recalls(test, d) for n, d in on_test.items()},
        "queries": queries_of(next(iter(on_test.values())), test.links.numpy(), _sizes(test)),
        "hits": {n: hits_of(d) for n, d in on_test.items()},
        "zero_shot": {
            name: {n: named(adapters, classes, s, device) for n, s in scorers.items()}
            for name, classes in zero_shot.items()
        },
    }


def ranked_by(split: SplitEmbeddings, scorer: Scorer) -> list[Direction]:
    return ranked(split.embeddings, split.links, scorer.score, device=split.device)


def _sizes(split: SplitEmbeddings) -> dict[str, int]:
    return {m: len(rows) for m, rows in split.embeddings.items()}


def recalls(split: SplitEmbeddings, directions: Sequence[Direction]) -> dict[str, Any]:
    """Recalls in percent: means over directions, of R@1 with its bootstrap interval over linked
    groups of items, and of each direction."""
    whole = summed_up(list(directions), split.links.numpy(), _sizes(split))
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
