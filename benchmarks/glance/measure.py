"""Accuracy against the number of looks, by way of choosing them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from fusemix_glance.fitting import (
    FIRST,
    SOUND,
    Choices,
    cascade_curve,
    fit_look,
    look_at,
    scores_by_look,
)
from fusemix_glance.fuser import Glance, GlanceFuser
from torch import Tensor

from benchmarks.glance.clips import MOMENTS, SIDE, Clip
from benchmarks.glance.latents import FIRST as QUICK
from benchmarks.glance.latents import LOOK as SLOW
from benchmarks.glance.latents import SOUND as EAR
from benchmarks.glance.latents import Split
from fusemix_core.data.facts import Fact
from fusemix_core.fuser import Labelled
from fusemix_core.interfaces import FitContext, PairedLatents, ResidentLatents, Task
from fusemix_core.tasks.classify import Classify

COUNTS = (1, 2, 4, 8, 16, MOMENTS)
COMPONENTS = 64
"""Of the cheap image encoder's latents."""
SHOWN = 4
"""Looks at which ways of choosing are compared."""

Rows = dict[str, Labelled]
Way = Callable[[str, Glance, np.random.Generator], Choices]
"""(split, what the cheap pass finds of its clips, draws) → all moments in an order, and windows."""


def labelled(splits: dict[str, Split], names: Sequence[str]) -> tuple[Task, Rows]:
    """The task, and the clips of each split with the latents of the cheap pass."""
    task = Classify(classes=list(names))
    rows, reduced = {}, principal(splits["train"].first)
    for split, one in splits.items():
        images = torch.from_numpy(np.stack([clip.images for clip in one.clips])).flatten(1)
        sounds = torch.from_numpy(np.stack([clip.sounds for clip in one.clips]))
        tables: dict[str, ResidentLatents] = {
            FIRST: ResidentLatents(reduced(one.first)[images]),
            SOUND: ResidentLatents(one.heard[sounds]),
        }
        numbers = torch.arange(len(one.clips))
        labels = np.array([clip.label for clip in one.clips])
        targets = task.targets({"target": Fact("class", labels, tuple(names))})
        pairs = PairedLatents(tables, numbers[:, None].repeat(1, 2)).with_tokens(tables)
        rows[split] = Labelled(pairs, targets, numbers)
    return task, rows


def principal(latents: Tensor) -> Callable[[Tensor], Tensor]:
    """The map to the first principal components of these latents: the fits take a tenth of the
    time."""
    mean = latents.mean(dim=0)
    axes = torch.linalg.svd(latents - mean, full_matrices=False).Vh[:COMPONENTS]
    return lambda rows: (rows - mean) @ axes.T


def looker(one: Split) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Looks at windows of the clips of a split, whose latents are known."""
    images = torch.from_numpy(np.stack([clip.images for clip in one.clips]))

    def look(clips: Tensor, moments: Tensor, regions: Tensor) -> Tensor:
        return one.looks[images[clips[:, None], moments, regions]]

    return look


def fit_first(rows: Rows, task: Task, modalities: Sequence[str]) -> GlanceFuser:
    """The cheap pass on these modalities."""
    train, validation = (rows[split].only(modalities) for split in ("train", "validation"))
    fitted = GlanceFuser.fit(
        train, validation, task, FitContext(), seen=FIRST, moments=MOMENTS
    ).fuser
    assert isinstance(fitted, GlanceFuser)
    return fitted


def in_order(moments: Tensor, found: Glance) -> Choices:
    """These moments, each with the window that counts most."""
    return Choices(moments, found.regions_of(moments))


def by_saliency(split: str, found: Glance, draw: np.random.Generator) -> Choices:
    return Choices(*found.best(MOMENTS))


def uniform(split: str, found: Glance, draw: np.random.Generator) -> Choices:
    """So that the first k of 2, 4, 8, … moments are evenly spread: bits in reverse order."""
    order = sorted(range(MOMENTS), key=lambda t: int(f"{t * 32 // MOMENTS:05b}"[::-1], 2))
    return in_order(torch.tensor(order).expand(len(found.saliency), -1), found)


def at_random(split: str, found: Glance, draw: np.random.Generator) -> Choices:
    order = draw.permuted(np.tile(np.arange(MOMENTS), (len(found.saliency), 1)), axis=1)
    return in_order(torch.from_numpy(order), found)


def any_window(split: str, found: Glance, draw: np.random.Generator) -> Choices:
    """The most salient moments, and a window of each at random."""
    moments = found.best(MOMENTS)[0]
    return Choices(moments, torch.from_numpy(draw.integers(SIDE**2, size=tuple(moments.shape))))


def known(clips: dict[str, list[Clip]]) -> Way:
    """The salient moments and their windows, as the clips were made: the best that can be."""

    def way(split: str, found: Glance, draw: np.random.Generator) -> Choices:
        place = torch.from_numpy(np.stack([clip.place for clip in clips[split]]))
        order = (place < 0).int().argsort(dim=1, stable=True)
        first = order[:, :1].expand_as(order)
        order = torch.where(place.gather(1, order) >= 0, order, first)
        return Choices(order, place.gather(1, order))

    return way


def measured(splits: dict[str, Split], names: Sequence[str]) -> dict[str, Any]:
    """All figures, by way of choosing."""
    task, rows = labelled(splits, names)
    clips = {split: one.clips for split, one in splits.items()}
    fuser = {"audio and image": fit_first(rows, task, (FIRST, SOUND))}
    fuser["image only"] = fit_first(rows, task, (FIRST,))
    ways: dict[str, tuple[str, Way]] = {
        "audio-visual saliency": ("audio and image", by_saliency),
        "visual saliency": ("image only", by_saliency),
        "uniform": ("audio and image", uniform),
        "random": ("audio and image", at_random),
        "audio-visual saliency, any window": ("audio and image", any_window),
        "known moments and windows": ("audio and image", known(clips)),
    }
    right, found = {}, {}
    for name, (which, way) in ways.items():
        right[name], found[name] = _one(fuser[which], way, splits, rows, task)
        print(name, found[name]["accuracy"], found[name]["precision"], flush=True)
    ours = "audio-visual saliency"
    all_frames = right["uniform"][MOMENTS]
    for name, own in right.items():
        gap = right[ours][SHOWN] - own[SHOWN]
        found[name]["ours minus this"] = interval(gap)
    gains = {"ours minus all frames": interval(right[ours][SHOWN] - all_frames)}
    return {"ways": found, **gains, "seconds": seconds(splits["test"])}


def _one(
    first: GlanceFuser, way: Way, splits: dict[str, Split], rows: Rows, task: Task
) -> tuple[dict[int, np.ndarray], dict[str, Any]]:
    """Clips that are right after so many looks, and the figures of a way of choosing."""
    looks, own = {}, {}
    for number, (split, labelled_rows) in enumerate(rows.items()):
        seen = labelled_rows.only(list(first.inputs))
        with torch.no_grad():
            latents = {m: seen.latents(m) for m in seen.modalities}
            found = first.glance(latents, seen.present)
        choices = way(split, found, np.random.default_rng([7, number]))
        own[split] = labelled_rows
        looks[split] = look_at(labelled_rows, choices, looker(splits[split]))
    parts = ("train", "validation")
    prediction = fit_look([own[s] for s in parts], [looks[s] for s in parts], task, FitContext())
    truth, clips = rows["test"].targets.values, splits["test"].clips
    scores = scores_by_look(first, prediction, rows["test"].only(list(first.inputs)), looks["test"])
    right = {k: (one.argmax(dim=1) == truth).double().numpy() for k, one in enumerate(scores)}
    precision, window = _found(looks["test"].choices, clips)
    leads = np.array([clip.leads for clip in clips])
    return right, {
        "accuracy": {k: interval(right[k]) for k in (0, *COUNTS)},
        "precision": interval(precision),
        "window": interval(window),
        "by lead": {
            lead: {
                "accuracy": interval(right[SHOWN][leads == lead]),
                "precision": interval(precision[leads == lead]),
                "window": interval(window[leads == lead]),
            }
            for lead in ("sound", "image")
        },
        "cascade": cascade_curve(task, scores[: 2 * SHOWN + 1], truth),
    }


def _found(choices: Choices, clips: Sequence[Clip]) -> tuple[np.ndarray, np.ndarray]:
    """Of each clip the share of `SHOWN` moments that are salient, and of the salient moments the
    share whose window is right, NaN if none was chosen."""
    precision, window = [], []
    for clip, when, where in zip(clips, choices.moments, choices.regions, strict=True):
        own = when[:SHOWN].numpy()
        salient = clip.salient[own]
        precision.append(salient.mean())
        right = clip.place[own] == where[:SHOWN].numpy()
        window.append(right[salient].mean() if salient.any() else np.nan)
    return np.array(precision), np.array(window)


def interval(values: np.ndarray) -> list[float]:
    """The mean over clips and its 95% bootstrap interval."""
    values = values[~np.isnan(values)]
    draw = np.random.default_rng(0)
    means = values[draw.integers(len(values), size=(2_000, len(values)))].mean(axis=1)
    return [round(float(x), 4) for x in (values.mean(), *np.quantile(means, (0.025, 0.975)))]


def seconds(one: Split) -> dict[str, float]:
    """CPU seconds of the encoders for one clip: of the cheap pass, of a look, of all windows by the
    slow encoder."""
    images = MOMENTS * SIDE**2
    cheap = images * one.seconds[QUICK] + MOMENTS * one.seconds[EAR]
    look = one.seconds[SLOW]
    return {k: round(v, 3) for k, v in (("cheap", cheap), ("look", look), ("all", images * look))}
