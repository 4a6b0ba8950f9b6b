"""What the built-in evaluators draw, on matplotlib axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def draw_map(axes: Axes, points: Sequence[np.ndarray], lines: np.ndarray) -> None:
    """Scatter of `[n_k, 2]` points of each modality; lines `[L, 2, 2]` join partners."""
    from matplotlib import rcParams

    if len(lines):
        gaps = np.full((len(lines), 1, 2), np.nan)
        path = np.concatenate([lines, gaps], axis=1).reshape(-1, 2)
        axes.plot(*path.T, color=rcParams["text.color"], alpha=0.25, linewidth=0.6)
    for i, rows in enumerate(points):
        axes.plot(
            *rows.T,
            linestyle="",
            marker="os^Dvp"[i % COLOURS],
            markersize=3.4,
            color=f"C{i % COLOURS}",
            alpha=0.8,
            markeredgewidth=0,
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_aspect("equal", adjustable="datalim")


def principal_map(
    embeddings: Mapping[str, np.ndarray], links: np.ndarray, most: int = 400, seed: int = 0
) -> tuple[list[np.ndarray], np.ndarray, list[float]]:
    """A plane through the space: points of each modality, lines between partners, variance in %.

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
    points = np.split(flat, np.cumsum([len(i) for i in ids])[:-1])
    lines = []
    for row in links:
        ends = [
            p[np.searchsorted(i, x)] for p, i, x in zip(points, ids, row, strict=True) if x >= 0
        ]
        lines += zip(ends, ends[1:], strict=False)
    total = max(float((lengths**2).sum()), 1e-30)
    explained = [100 * float(length**2) / total for length in lengths[:2]]
    return points, np.array(lines).reshape(-1, 2, 2), explained
