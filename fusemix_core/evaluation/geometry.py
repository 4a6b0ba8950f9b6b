"""The shape of the shared space: modality gap, alignment, uniformity, cosines of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.errors import DataError
from fusemix_core.evaluation.drawing import draw_histogram, principal_map
from fusemix_core.evaluation.ranking import Positives
from fusemix_core.interfaces import Evaluator
from fusemix_core.measured import Measured
from fusemix_core.sections import Figure, Points, Section, Table

SAMPLE = 2048
BINS = 100
_ROWS = 1024


@torch.no_grad()
def geometry(
    embeddings: Mapping[str, Tensor],
    links: Tensor,
    *,
    sample: int = SAMPLE,
    bins: int = BINS,
    seed: int = 0,
) -> dict[str, Any]:
    """Geometry of unit-norm embeddings, modality → `[items, d]`, over a split's links `[m, K]`.

    Returns

        uniformity: {"image": float | None}    log of the mean of exp(-2 |x - y|²) over two
                    different items of the modality; lower is more uniform; 0 when all are equal
        pairs: {"image-text": {
            pairs, gap                         distance of the two modalities' centroids
            alignment                          mean squared distance of positive pairs
            positive_cosine, negative_cosine   means over all pairs, over all non-pairs
            histogram: {edges [bins + 1], pairs [bins], non_pairs [bins]}}}    counts of cosines

    Each modality is represented by its unique items that have a partner (for uniformity: that occur
    in the links). Means are over all of them; uniformity and the histogram of non-pairs use at most
    `sample` items of each modality, drawn with `seed`. Alignment and uniformity follow Wang and
    Isola, 2020 (arXiv 2005.10242), the gap Liang et al., 2022 (arXiv 2203.02053).
    """
    links = links.cpu()
    modalities = list(embeddings)
    generator = torch.Generator().manual_seed(seed)
    uniform = {}
    for column, modality in enumerate(modalities):
        ids = links[:, column]
        ids = _draw(ids[ids >= 0].unique(), sample, generator)
        uniform[modality] = uniformity(_rows(embeddings[modality], ids))
    pairs = {}
    for (i, a), (j, b) in combinations(enumerate(modalities), 2):
        forward, backward = Positives.of(links, i, j), Positives.of(links, j, i)
        if not len(forward.pairs):
            continue
        # Positions in the unique partnered items of either side.
        first = forward.pairs[:, 0]
        second = torch.searchsorted(backward.queries, forward.gallery[forward.pairs[:, 1]])
        x = _rows(embeddings[a], forward.queries)
        y = _rows(embeddings[b], backward.queries)
        pairs[f"{a}-{b}"] = _pair(x, y, torch.stack([first, second], 1), sample, bins, generator)
    if not pairs:
        raise DataError(
            "No row of this split links two modalities, so the space can't be measured.",
            "Evaluate another split, or give it a larger fraction of the data.",
        )
    return {"uniformity": uniform, "pairs": pairs}


def uniformity(rows: Tensor) -> float | None:
    """log mean exp(-2 |x - y|²) over the pairs of different rows of `[n, d]`; None for one row."""
    n = len(rows)
    if n < 2:
        return None
    total = 0.0
    for start in range(0, n, _ROWS):
        chunk = rows[start : start + _ROWS]
        squared = _squared_distances(chunk, rows)
        own = torch.arange(len(chunk))
        squared[own, start + own] = torch.inf
        total += torch.exp(-2 * squared).sum().item()
    # All distances at most 2 apart, so every term is at least exp(-8).
    return log(total / (n * (n - 1)))


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """`[n, m]`; never negative."""
    squared = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
    return squared.clamp(min=0)


def _pair(
    x: Tensor, y: Tensor, pairs: Tensor, sample: int, bins: int, generator: torch.Generator
) -> dict[str, Any]:
    """The entry of two modalities, from unique items `[n, d]`, `[m, d]` and pairs `[E, 2]`."""
    own = torch.cat([(x[c[:, 0]] * y[c[:, 1]]).sum(1) for c in pairs.split(_ROWS * 16)])
    apart = torch.cat([(x[c[:, 0]] - y[c[:, 1]]).square().sum(1) for c in pairs.split(_ROWS * 16)])
    others = len(x) * len(y) - len(pairs)
    # The cosines of all combinations add up to the product of the two sums of rows.
    rest = (x.sum(0) @ y.sum(0) - own.sum()).item()
    edges = np.linspace(-1, 1, bins + 1)
    return {
        "pairs": len(pairs),
        "gap": (x.mean(0) - y.mean(0)).norm().item(),
        "alignment": apart.mean().item(),
        "positive_cosine": own.mean().item(),
        "negative_cosine": rest / others if others else None,
        "histogram": {
            "edges": edges.tolist(),
            "pairs": _histogram(own, edges).tolist(),
            "non_pairs": _others_histogram(x, y, pairs, sample, edges, generator).tolist(),
        },
    }


def _others_histogram(
    x: Tensor, y: Tensor, pairs: Tensor, sample: int, edges: np.ndarray, generator: torch.Generator
) -> np.ndarray:
    """Counts of the cosines of non-pairs among at most `sample` rows of either side."""
    rows = _draw(torch.arange(len(x)), sample, generator)
    columns = _draw(torch.arange(len(y)), sample, generator)
    row_of = torch.full((len(x),), -1).scatter(0, rows, torch.arange(len(rows)))
    column_of = torch.full((len(y),), -1).scatter(0, columns, torch.arange(len(columns)))
    inside = torch.stack([row_of[pairs[:, 0]], column_of[pairs[:, 1]]], dim=1)
    inside = inside[(inside >= 0).all(dim=1)]
    counts = np.zeros(len(edges) - 1, dtype=np.int64)
    for start in range(0, len(rows), _ROWS):
        cosines = x[rows[start : start + _ROWS]] @ y[columns].T
        other = torch.ones_like(cosines, dtype=torch.bool)
        here = inside[(inside[:, 0] >= start) & (inside[:, 0] < start + _ROWS)]
        other[here[:, 0] - start, here[:, 1]] = False
        counts += _histogram(cosines[other], edges)
    return counts


def _histogram(cosines: Tensor, edges: np.ndarray) -> np.ndarray:
    """Counts in the bins; rounding may take a cosine just past ±1, which counts in the last bin."""
    return np.histogram(cosines.clamp(-1, 1).numpy(), edges)[0]


def _draw(ids: Tensor, sample: int, generator: torch.Generator) -> Tensor:
    """All of `ids`, or `sample` of them drawn without replacement, in their order."""
    if len(ids) <= sample:
        return ids
    return ids[torch.randperm(len(ids), generator=generator)[:sample].sort().values]


def _rows(embeddings: Tensor, ids: Tensor) -> Tensor:
    """float64 CPU rows: sums over a million items keep their digits."""
    return embeddings[ids.to(embeddings.device)].cpu().double()


class GeometryEvaluator(Evaluator):
    """`geometry`, with a map of the space and the histograms of cosines."""

    def __init__(self, sample: int = SAMPLE, bins: int = BINS) -> None:
        self.sample, self.bins = sample, bins

    def __call__(self, data: Measured) -> dict[str, Any]:
        return geometry(
            data.embeddings, data.links, sample=self.sample, bins=self.bins, seed=data.seed
        )

    def sections(self, metrics: Mapping[str, Any], data: Measured) -> list[Section]:
        pairs = {name.replace("-", " – ", 1): pair for name, pair in metrics["pairs"].items()}
        rows = [
            [name, p["gap"], p["alignment"], p["positive_cosine"], p["negative_cosine"]]
            for name, p in pairs.items()
        ]
        columns = ["modalities", "modality gap", "alignment", "cosine of pairs", "of non-pairs"]
        spread = ", ".join(
            f"{m}: {'–' if u is None else f'{u:.2f}'}" for m, u in metrics["uniformity"].items()
        )
        section = Section(
            "The shared space",
            tables=[Table(columns, rows)],
            figures=[_map(data), *(_histograms(name, pair) for name, pair in pairs.items())],
            note="Gap: distance between the modalities' centroids. Alignment: mean squared "
            f"distance of pairs, smaller is closer. Uniformity, {spread} (lower is more evenly "
            "spread).",
        )
        return [section]


def _map(data: Measured) -> Figure:
    embeddings = {m: e.numpy() for m, e in data.embeddings.items()}
    plane = principal_map(embeddings, data.links.numpy())
    items = [
        (m, int(data.ids[m][i]) if m in data.ids else i)
        for m, ids in plane.ids.items()
        for i in ids.tolist()
    ]
    colours = {"modality": [modality for modality, _ in items]}
    for name, fact in data.facts.items():
        if fact.kind == "class":
            of = [data.class_of(name, m).numpy()[ids] for m, ids in plane.ids.items()]
            labels = np.concatenate(of).tolist()
            colours[name] = [fact.names[i] if i >= 0 else "none" for i in labels]
    variance = " and ".join(f"{share:.0f}%" for share in plane.explained)
    return Figure(
        Points(plane.points.tolist(), items, colours, plane.lines.tolist()),
        "Map",
        caption=f"{len(items):,} items on the first two principal components ({variance} of the "
        "variance); shapes are modalities, and lines join partners. Point at an item, or use the "
        "arrow keys.",
        alt="Map of the shared space",
    )


def _histograms(name: str, pair: Mapping[str, Any]) -> Figure:
    found = pair["histogram"]
    return Figure(
        lambda axes: draw_histogram(axes, found["edges"], [found["pairs"], found["non_pairs"]]),
        name,
        ["pairs", "non-pairs"],
        alt="Histogram of the cosines of pairs and non-pairs",
    )
