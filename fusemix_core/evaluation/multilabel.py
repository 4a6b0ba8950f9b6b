"""Zero-shot with any number of classes an item: AUROC by class, with intervals over groups."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.evaluation.bootstrap import CONFIDENCE, components, draw_kinds, interval
from fusemix_core.evaluation.compared import CHANCE
from fusemix_core.measured import Classes, Measured
from fusemix_core.numerics import at_least_float32, exact
from fusemix_core.sections import Section, Table

SIMILARITY, CONTRAST = "similarity", "contrast"
"""The scores of a class: that of its prompts; that of positive prompts less that of negative ones.
"""
POSITIVE, NEGATIVE = ("{}",), ("no {}",)
"""Prompts that say so, and that deny it, unless others are given."""
_MOST_VALUES = 1 << 22
_ITEMS = 4096
_SHOWN = 100


def labels_in(cell: str, separator: str) -> list[str]:
    """The labels in a cell: a JSON list of texts, or texts between separators; none if it is empty.

    Example:
        labels_in("effusion; edema", ";")  # ["effusion", "edema"]
    """
    if cell.startswith("["):
        try:
            listed = json.loads(cell)
        except (ValueError, RecursionError):
            listed = None
        if isinstance(listed, list) and all(isinstance(one, str) for one in listed):
            return [one.strip() for one in listed if one.strip()]
    return [one.strip() for one in cell.split(separator) if one.strip()]


def label_table(
    cells: Sequence[str], separator: str, index: Mapping[str, int], count: int
) -> np.ndarray:
    """bool `[len(cells), count]`: the classes in each cell, by the `index` of labels."""
    table = np.zeros((len(cells), count), bool)
    for row, cell in zip(table, cells, strict=True):
        row[[index[label] for label in labels_in(cell, separator)]] = True
    return table


def of_items(table: np.ndarray, cells: np.ndarray, items: np.ndarray, count: int) -> np.ndarray:
    """bool `[count, C]`: the classes of each item, those of all its rows together.

    Args:
        table: bool, as of `label_table`.
        cells, items: int64 `[m]`, the cell and the item of each row, -1 if it is missing.
    """
    found = np.zeros((count, table.shape[1]), bool)
    there = (cells >= 0) & (items >= 0)
    np.logical_or.at(found, items[there], table[cells[there]])
    return found


def groups_of(rows: np.ndarray, items: int) -> np.ndarray:
    """int64 `[items]`: the group of each item, from (item, value of the group column) of the rows,
    -1 for an item or a value that is missing. Items that share a value are in one group, as are
    those that are joined by others."""
    linked = rows[(rows >= 0).all(axis=1)]
    values = int(rows[:, 1].max(initial=-1)) + 1
    labels = components(linked, [items, values])[0]
    return np.unique(labels, return_inverse=True)[1]


def fact_labels(
    data: Measured, fact: str, modality: str, separator: str, group: str = ""
) -> tuple[list[str], Tensor, Tensor | None]:
    """(the classes that occur in a fact of the rows, bool `[n, C]` which of them each item has,
    its group by the fact `group`).

    Raises:
        ConfigError: if there is no such fact, or it contains no texts.
    """
    cells = _texts(data, fact)
    labels = sorted({label for cell in cells.names for label in labels_in(cell, separator)})
    index = {label: i for i, label in enumerate(labels)}
    table = label_table(cells.names, separator, index, len(labels))
    items = data.links[:, data.modalities.index(modality)].numpy()
    count = len(data.embeddings[modality])
    groups = None
    if group:
        rows = np.stack([items, _texts(data, group).values], axis=1)
        groups = torch.from_numpy(groups_of(rows, count))
    return labels, torch.from_numpy(of_items(table, cells.values, items, count)), groups


def _texts(data: Measured, name: str) -> Fact:
    found = data.facts.get(name)
    if found is None or found.kind not in ("class", "text"):
        known = [n for n, f in data.facts.items() if f.kind in ("class", "text")]
        raise ConfigError(
            f"The data have no fact '{name}' with texts.",
            f"Facts with texts: {', '.join(known) or 'none'} (--fact NAME=COLUMN:labels).",
        )
    return found


def auroc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """How likely a positive scores above a negative, ties counted half; None without both.

    Args:
        scores: float `[n]`. A NaN counts against the score: lowest of a positive, highest else.
        positive: bool `[n]`.
    """
    found = aurocs(scores, positive, np.ones((1, len(scores))))[0]
    return None if np.isnan(found) else float(found)


def aurocs(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`auroc` with weights of the items, float `[B, n]`, for each of B; NaN without both."""
    worst = np.where(positive, -np.inf, np.inf)
    scores = np.where(np.isnan(scores), worst, scores)
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] > ranked[:-1]])  # of equal scores
    found = np.empty(len(weights))
    step = max(1, _MOST_VALUES // max(len(scores), 1))
    for start in range(0, len(weights), step):
        sorted_ = weights[start : start + step][:, order].astype(float)
        up = np.add.reduceat(sorted_ * positive[order], starts, axis=1)
        down = np.add.reduceat(sorted_ * ~positive[order], starts, axis=1)
        won = (up * (np.cumsum(down, axis=1) - down / 2)).sum(axis=1)
        pairs = up.sum(axis=1) * down.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found[start : start + step] = won / pairs
    return found


@exact()
@torch.no_grad()
def class_scores(data: Measured, classes: Classes) -> dict[str, np.ndarray]:
    """The scores of every item and class, float `[n, C]`, by the name of the score."""

    def against(rows: Tensor) -> np.ndarray:
        gallery = at_least_float32(rows).to(data.device)
        parts = [
            data.score(part.to(data.device), gallery, classes.query, classes.target).cpu()
            for part in at_least_float32(data.embeddings[classes.query]).split(_ITEMS)
        ]
        return torch.cat(parts).double().numpy()

    found = {SIMILARITY: against(classes.embeddings)}
    if classes.contrast is not None:
        positive, negative = classes.contrast
        found[CONTRAST] = against(positive) - against(negative)
    return found


@dataclass(frozen=True)
class _Drawn:
    """The AUROC of the classes that have both labels `[K]`, and resampled ones `[B, K]`, whose mean
    leaves out the classes that a draw has one label of."""

    of: np.ndarray
    resampled: np.ndarray | None

    @classmethod
    def by(cls, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> _Drawn:
        columns = list(zip(scores.T, labels.T, strict=True))
        of = [aurocs(s, y, np.ones((1, len(y))))[0] for s, y in columns]
        if weights is None:
            return cls(np.array(of), None)
        return cls(np.array(of), np.stack([aurocs(s, y, weights) for s, y in columns], axis=1))

    @property
    def mean(self) -> float:
        return float(self.of.mean())

    def summary(self) -> dict[str, Any]:
        """The mean with its interval, and how many classes it is of."""
        between = None if self.means is None else interval(self.means)
        return {"auroc": self.mean, "auroc_interval": between, "classes": len(self.of)}

    @property
    def means(self) -> np.ndarray | None:
        """`[B]`."""
        if self.resampled is None:
            return None
        there = ~np.isnan(self.resampled)
        return np.where(there, self.resampled, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)


def measure_labels(
    data: Measured,
    classes: Classes,
    others: Mapping[str, tuple[Measured, Classes]],
    resamples: int,
) -> dict[str, Any]:
    """`multi_label` of a split, and of baselines that have their own embeddings of the classes."""
    labels = classes.labels.numpy()
    groups = np.arange(len(labels)) if classes.groups is None else classes.groups.numpy()
    scores = {name: class_scores(*other) for name, other in others.items()}
    own = class_scores(data, classes)
    return multi_label(own, labels, classes.names, groups, scores, resamples, data.seed)


def multi_label(
    scores: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    groups: np.ndarray,
    others: Mapping[str, Mapping[str, np.ndarray]],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """AUROC of each class and their mean, for each score.

    Args:
        scores: name → float `[n, C]`.
        labels: bool `[n, C]`.
        classes: C names.
        groups: int64 `[n]`; what the bootstrap draws is groups.
        others: baseline → its scores, by the same names.
        resamples, seed: of the bootstrap.

    Returns:
        `scores`: name → `auroc`, the mean over the classes that have both labels, with its
        interval, and the number of these `classes`. `per_class`: class → how many `positives`, and
        the AUROC of each score with its interval, None for a class without both labels.
        `baselines` → the same means. `ahead` is the mean of the model's last score less that of the
        baseline; its interval is paired by group.

    Raises:
        DataError: if no class has both labels.
    """
    both = np.flatnonzero(labels.any(axis=0) & ~labels.all(axis=0))
    if not len(both):
        raise DataError(
            "No class has items with it and without it, so there is no AUROC.",
            "The labels of an item must be written as in the file of classes.",
        )
    count = int(groups.max()) + 1
    drawn = draw_kinds(np.ones(count, np.int64), resamples, seed)
    weights = None if drawn is None else drawn[:, groups]

    def measured(values: np.ndarray) -> _Drawn:
        return _Drawn.by(values[:, both], labels[:, both], weights)

    found = {name: measured(values) for name, values in scores.items()}
    known = {n: {s: measured(values) for s, values in own.items()} for n, own in others.items()}
    return {
        "unit": "AUROC, 0 to 1",
        "items": len(labels),
        "groups": count,
        "classes": list(classes),
        "scores": {name: one.summary() for name, one in found.items()},
        "per_class": _by_class(classes, labels, both, found),
        "baselines": _beside(found, known),
        "confidence": CONFIDENCE,
        "resamples": resamples,
        "seed": seed,
    }


def _beside(
    found: Mapping[str, _Drawn], others: Mapping[str, Mapping[str, _Drawn]]
) -> dict[str, dict[str, Any]]:
    """The entries of a random order and of other models."""
    last = list(found)[-1]
    table = {CHANCE: {**dict.fromkeys(found, 0.5), **_ahead(found[last], 0.5, 0.5)}}
    for name, own in others.items():
        ahead = _ahead(found[last], own[last].mean, own[last].means)
        table[name] = {**{score: one.mean for score, one in own.items()}, **ahead}
    return table


def _ahead(own: _Drawn, other: float, others: np.ndarray | float | None) -> dict[str, Any]:
    between = None if own.means is None or others is None else interval(own.means - others)
    return {"ahead": own.mean - other, "ahead_interval": between}


def _by_class(
    classes: Sequence[str], labels: np.ndarray, both: np.ndarray, found: Mapping[str, _Drawn]
) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    place = {int(c): k for k, c in enumerate(both)}
    for c, name in enumerate(classes):
        row: dict[str, Any] = {"positives": int(labels[:, c].sum())}
        table[name] = row
        for score, one in found.items():
            k = place.get(c)
            drawn = one.resampled
            row[score] = None if k is None else float(one.of[k])
            row[f"{score}_interval"] = None
            if k is not None and drawn is not None:
                row[f"{score}_interval"] = interval(drawn[:, k])
    return table


def section_of(metrics: Mapping[str, Any]) -> Section:
    """The AUROCs as tables."""
    scores = list(metrics["scores"])
    by = "items" if metrics["groups"] == metrics["items"] else "groups"
    own = [_with_interval(one, "auroc") for one in metrics["scores"].values()]
    beside = [
        [name, *(f"{one[score]:.3f}" for score in scores), _signed(one)]
        for name, one in metrics["baselines"].items()
    ]
    means = Table(
        ["", *scores, f"ahead by {scores[-1]}"],
        [["this model", *own, "–"], *beside],
        f"Mean AUROC of {metrics['scores'][scores[0]]['classes']:,} classes",
    )
    rows = [
        [name, row["positives"], *(_with_interval(row, score) for score in scores)]
        for name, row in list(metrics["per_class"].items())[:_SHOWN]
    ]
    text = (
        f"{metrics['items']:,} items with any number of {len(metrics['classes']):,} classes; AUROC "
        f"with 95% bootstrap intervals over {metrics['groups']:,} {by}."
    )
    note = "similarity: the score of the class's prompts."
    if CONTRAST in scores:
        note += (
            " contrast: that of the positive prompts less that of the negative ones. The softmax "
            "of the two rises with it, so it has the same AUROC."
        )
    per_class = Table(["class", "with it", *scores], rows, "Each class")
    return Section("Zero-shot classification", text, [means, per_class], note=note)


def _with_interval(row: Mapping[str, Any], name: str) -> str | None:
    value, between = row[name], row[f"{name}_interval"]
    if value is None:
        return None
    shown = "" if between is None else f" [{between[0]:.3f}, {between[1]:.3f}]"
    return f"{value:.3f}{shown}"


def _signed(row: Mapping[str, Any]) -> str:
    between = row["ahead_interval"]
    shown = "" if between is None else f" [{between[0]:.3f}, {between[1]:.3f}]"
    return f"{row['ahead']:+.3f}{shown}"
