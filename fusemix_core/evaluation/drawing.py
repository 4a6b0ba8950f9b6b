"""Histograms and planes for the built-in evaluators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = 6
"""How many different colours the page has for series and modalities."""


def draw_histogram(axes: Axes, edges: Sequence[float], groups: Sequence[Sequence[int]]) -> None:
    """Share of each group's counts by bin, filled steps, cropped to the bins in use."""
    edges_of, counts = np.asarray(edges, float), np.asarray(groups, float)
    used = np.nonzero(counts.sum(axis=0))[0]
    first, last = (used[0], used[-1] + 1) if len(used) else (0, counts.shape[1])
    for i, group in enumerate(counts):
        shares = 100 * group / max(group.sum(), 1)
        axes.stairs(
            shares[first:last],
            edges_of[first : last + 1],
            fill=True,
            facecolor=(f"C{i}", 0.25),
            edgecolor=f"C{i}",
            linewidth=1.4,
        )
    axes.set_xlabel("cosine")
    axes.set_ylabel("% per bin")


@dataclass(frozen=True)
class Plane:
    """Items of a plane through a space.

    ids: modality → int64 `[n]`, sorted items; the points are of one modality after the other.
    points: `[N, 2]`. lines: `[L, 2]`, numbers of points that are partners. explained: percent of
    the variance along each axis.
    """

    ids: dict[str, np.ndarray]
    points: np.ndarray
    lines: np.ndarray
    explained: list[float]


def principal_map(
    embeddings: Mapping[str, np.ndarray], links: np.ndarray, most: int = 300, seed: int = 0
) -> Plane:
    """A plane through the space, with items and the lines between partners.

    Takes at most `most` rows of the links `[m, K]`, drawn with `seed`; the plane is that of the
    first two principal components of their items of all modalities together.
    """
    if len(links) > most:
        rows = np.random.default_rng(seed).choice(len(links), most, replace=False)
        links = links[np.sort(rows)]
    ids = [np.unique(c[c >= 0]) for c in links.T]
    items = [np.asarray(e, float)[i] for e, i in zip(embeddings.values(), ids, strict=True)]
    stacked = np.nan_to_num(np.concatenate(items))
    centred = stacked - stacked.mean(axis=0)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    axes = np.pad(axes[:2], ((0, max(0, 2 - len(axes))), (0, 0)))
    # The sign of a component is arbitrary: its largest entry is made positive.
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.where(axes[[0, 1], largest] < 0, -1, 1)[:, None]
    flat = centred @ axes.T
    starts = np.cumsum([0, *(len(i) for i in ids)])
    number = [
        np.where(column >= 0, start + np.searchsorted(own, column), -1)
        for column, own, start in zip(links.T, ids, starts, strict=False)
    ]
    lines = []
    for row in np.stack(number, axis=1):
        ends = row[row >= 0]
        lines += zip(ends, ends[1:], strict=False)
    total = max(float((lengths**2).sum()), 1e-30)
    explained = [100 * float(length**2) / total for length in lengths[:2]]
    joined = np.array(lines, dtype=np.int64).reshape(-1, 2)
    return Plane(dict(zip(embeddings, ids, strict=True)), flat, joined, explained)
