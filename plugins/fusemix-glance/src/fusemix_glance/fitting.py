"""Fitting both passes: the cheap one, then the prediction from a few windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.fuser import Fuser, Labelled
from fusemix_core.fusers.block import BlockRidge
from fusemix_core.fusion.cascade import THRESHOLDS, Curve, confidence
from fusemix_core.interfaces import FitContext, Padded, PairedLatents, ResidentLatents, Task
from fusemix_glance.fuser import Glance, GlanceFuser

FIRST, SOUND, LOOK = "image:first", "audio", "image:look"
"""The modalities of a glance: windows of all frames by the cheap encoder, sounds, and some windows
by the expensive one."""
MOST = 8
"""Looks per film that the prediction is fitted to."""

Looker = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(films int64 `[n]`, moments `[n, k]`, windows `[n, k]`) → latents of the windows `[n, k, d]`."""


@dataclass(frozen=True)
class Choices:
    """Where to look in n films, the most promising first.

    Attributes:
        moments: int64 `[n, k]`.
        regions: int64 `[n, k]`: the window of each.
    """

    moments: Tensor
    regions: Tensor


@dataclass(frozen=True)
class Looks:
    """The latents of the windows that were looked at in n films.

    Attributes:
        choices: where they were.
        seen: float32 `[n, k, d]`, the latents of the windows.
        heard: float32 `[n, k, d]`, those of the sounds at these moments; None without sound.
        silent: bool `[n]`: the films without sound.
    """

    choices: Choices
    seen: Tensor
    heard: Tensor | None
    silent: Tensor

    def latents(self, count: int) -> dict[str, Tensor]:
        """The input of the prediction after so many looks: means over these."""
        found = {LOOK: self.seen[:, :count].mean(dim=1)}
        if self.heard is not None:
            found[SOUND] = self.heard[:, :count].mean(dim=1)
        return found

    @property
    def present(self) -> Tensor:
        """bool `[n, K]`: which of these each film has."""
        there = torch.ones(len(self.seen), 1, dtype=torch.bool)
        return there if self.heard is None else torch.cat([there, ~self.silent[:, None]], dim=1)


@dataclass(frozen=True)
class GlanceFit:
    """Both passes, fitted, and how they do on validation films.

    Attributes:
        first: the cheap pass.
        look: the prediction from a few windows.
        looks: [number of looks, accuracy] from 0 looks on.
        cascade: for thresholds, what looking until the prediction is that probable saves; see
            `fusemix_core.fusion.cascade.Curve`, in which a row is a look here.
    """

    first: GlanceFuser
    look: Fuser
    looks: list[list[float]]
    cascade: Curve


def fit_glance(
    train: Labelled,
    validation: Labelled,
    task: Task,
    looker: Looker,
    *,
    most: int = MOST,
    context: FitContext | None = None,
    **options: Any,
) -> GlanceFit:
    """Fit both passes.

    Args:
        train, validation: films with the modality `image:first` and, if any is heard, `audio`:
            tokens by moment, as `GlanceFuser` takes them. Their `groups` are the numbers of films.
        task: gives classes.
        looker: looks at windows of films by the expensive encoder.
        most: looks per film.
        context: where it runs.
        options: of `GlanceFuser`.
    """
    context = context or FitContext()
    options = {"seen": FIRST, **options}
    first = GlanceFuser.fit(train, validation, task, context, **options).fuser
    assert isinstance(first, GlanceFuser)
    found = [look_at(rows, choose(first, rows, most), looker) for rows in (train, validation)]
    look = fit_look((train, validation), (found[0], found[1]), task, context)
    each = scores_by_look(first, look, validation, found[1])
    truth = validation.targets.values
    curve = [[float(k), round(_right(one, truth), 4)] for k, one in enumerate(each)]
    return GlanceFit(first, look, curve, cascade_curve(task, each, truth))


def glanced(first: GlanceFuser, rows: Labelled) -> Glance:
    """The cheap pass over films."""
    rows = rows.as_taken_by(first)
    latents = {m: _padded(rows.latents(m)) for m in rows.modalities}
    with torch.no_grad():
        return first.glance(latents, rows.present)


def choose(first: GlanceFuser, rows: Labelled, count: int) -> Choices:
    """The most salient moments of films, and the window of each that counts most."""
    return Choices(*glanced(first, rows).best(count))


def look_at(rows: Labelled, choices: Choices, looker: Looker) -> Looks:
    """Look at films; `rows.groups` are their numbers."""
    seen = looker(rows.groups, choices.moments, choices.regions)
    if SOUND not in rows.modalities:
        return Looks(choices, seen, None, torch.ones(len(rows), dtype=torch.bool))
    heard = _padded(rows.as_taken_by(GlanceFuser).latents(SOUND)).filled()
    index = choices.moments[..., None].expand(-1, -1, heard.shape[2])
    silent = ~rows.present[:, rows.modalities.index(SOUND)]
    return Looks(choices, seen, heard.gather(1, index), silent)


def fit_look(
    rows: Sequence[Labelled], looks: Sequence[Looks], task: Task, context: FitContext
) -> Fuser:
    """The prediction after any number of looks: ridge regression on the means of 1, 2, 4, … looks.
    `rows` and `looks` are those of training and validation."""
    train, validation = (_by_count(r, found) for r, found in zip(rows, looks, strict=True))
    return BlockRidge.fit(train, validation, task, context).fuser


def scores_by_look(first: GlanceFuser, look: Fuser, rows: Labelled, looks: Looks) -> list[Tensor]:
    """Scores `[n, C]` after 0, 1, 2, … looks; after none they are those of the cheap pass."""
    taken = rows.as_taken_by(first)
    with torch.no_grad():
        cheap = first({m: _padded(taken.latents(m)) for m in taken.modalities}, taken.present)
        count = looks.seen.shape[1]
        return [cheap, *(look(looks.latents(k), looks.present) for k in range(1, count + 1))]


def cascade_curve(task: Task, scores: Sequence[Tensor], truth: Tensor) -> Curve:
    """[threshold, share of looks that are saved, accuracy] of films that are looked at until the
    prediction is as probable as the threshold."""
    found: Curve = []
    most = len(scores) - 1
    sure = torch.stack([confidence(task, one) for one in scores], dim=1)
    right = torch.stack([one.argmax(dim=1) == truth for one in scores], dim=1)
    for threshold in THRESHOLDS:
        stops = sure >= threshold
        stops[:, -1] = True
        spent = stops.int().argmax(dim=1)
        own = right.gather(1, spent[:, None]).double().mean()
        saved = 1 - spent.double().mean() / most
        found.append([threshold, round(float(saved), 4), round(float(own), 4)])
    return found


def _by_count(rows: Labelled, looks: Looks) -> Labelled:
    """A row per film and number of looks. All rows of a film are left out together."""
    counts = [2**i for i in range(20) if 2**i <= looks.seen.shape[1]]
    parts = [looks.latents(count) for count in counts]
    tables = {m: ResidentLatents(torch.cat([part[m] for part in parts])) for m in parts[0]}
    places = torch.arange(len(rows) * len(counts))[:, None]
    links = places.where(looks.present.repeat(len(counts), 1), places.new_tensor(-1))
    index = torch.arange(len(rows)).repeat(len(counts))
    return Labelled(PairedLatents(tables, links), rows.targets[index], rows.groups[index])


def _right(scores: Tensor, truth: Tensor) -> float:
    return float(np.mean((scores.argmax(dim=1) == truth).numpy()))


def _padded(latents: Tensor | Padded) -> Padded:
    assert isinstance(latents, Padded), "the cheap pass takes tokens"
    return latents
