"""A ridge regression on some modalities: its coefficients, and its predictions of the rows that it
leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix_core.fuser import Labelled
from fusemix_core.fusers.features import Features
from fusemix_core.fusers.penalties import Choice
from fusemix_core.fusers.ridge import Moments, left_out, solved
from fusemix_core.padded import as_rows
from fusemix_core.prediction import Task


@dataclass(frozen=True)
class Regression:
    """Coefficients `[D, C]` and mean responses `[C]` of some modalities, and what is predicted for
    each row, `[n, C]`, if it is left out with its group."""

    weights: Tensor
    offsets: Tensor
    scores: Tensor


class Blocks:
    """The features and responses of training rows, for ridge regressions on any of the terms: each
    modality is one.

    Args:
        train: the rows.
        task: says what least squares fits.
        most: the most directions of a modality.
    """

    def __init__(self, train: Labelled, task: Task, most: int) -> None:
        self.present = train.present
        self.features: list[Features] = []
        self.rows: list[Tensor] = []
        for k, modality in enumerate(train.modalities):
            latents, there = as_rows(train.latents(modality)), self.present[:, k]
            key = Features, modality, most
            if key not in train.computed:
                train.computed[key] = Features.of(latents, there, most)
            one = deepcopy(train.computed[key])
            self.features.append(one)
            self.rows.append(one(latents, there).double())
        responses, self.known = task.responses(train.targets)
        self.responses = responses.double()
        self.groups = train.left_out_together()

    def add(self, rows: Tensor, present: Tensor) -> None:
        """Add a term: features float64 `[n, width]`, zeros if it is not present, bool `[n]`."""
        self.rows.append(rows)
        self.present = torch.cat([self.present, present[:, None]], dim=1)

    @property
    def ranks(self) -> list[int]:
        """How many features each term has: the modalities, then what was added."""
        return [rows.shape[1] for rows in self.rows]

    def with_any(self, terms: Sequence[int]) -> Tensor:
        """int64: the rows that have one of these terms, and a target."""
        able = self.present[:, list(terms)].any(dim=1) & self.known.any(dim=1)
        return able.nonzero()[:, 0]

    def choice(self, terms: Sequence[int]) -> Choice:
        """The choice of penalties for these terms. A response that isn't known is the mean."""
        rows = self.with_any(terms)
        known, responses = self.known[rows], self.responses[rows]
        mean = (responses * known).sum(dim=0) / known.sum(dim=0).clamp_min(1)
        return Choice(
            torch.cat([self.rows[k][rows] for k in terms], dim=1),
            torch.where(known, responses, mean),
            [self.ranks[k] for k in terms],
            self._groups_in(rows),
        )

    def fit(self, terms: Sequence[int], decades: Sequence[float]) -> Regression:
        """The regression on these terms with penalties of 10^decade each.

        Outputs that are known in other rows are fitted apart.
        """
        features = torch.cat([self.rows[k] for k in terms], dim=1)
        count, outputs = self.responses.shape
        weights = features.new_zeros(features.shape[1], outputs)
        offsets, scores = features.new_zeros(outputs), features.new_zeros(count, outputs)
        each = 10 ** torch.tensor(list(decades), dtype=torch.float64)
        each = each.repeat_interleave(torch.tensor([self.ranks[k] for k in terms]))
        able = self.present[:, list(terms)].any(dim=1)
        for columns in _alike(self.known):
            rows = (able & self.known[:, columns[0]]).nonzero()[:, 0]
            if not len(rows):
                continue
            own, responses = features[rows], self.responses[rows][:, columns]
            centre = own.mean(dim=0)
            moments, own = Moments.of(own - centre, responses), own - centre
            penalties = each * len(rows)
            found = solved(moments, penalties)
            weights[:, columns] = found
            offsets[columns] = moments.mean - centre @ found
            scores[:, columns] = features @ found + offsets[columns]
            out = left_out(moments, own, responses, penalties, self._groups_in(rows))
            scores[rows[:, None], columns] = out
        return Regression(weights, offsets, scores)

    def _groups_in(self, rows: Tensor) -> list[Tensor]:
        """The groups in the numbers that rows have among `rows`."""
        if len(rows) == len(self.present):
            return self.groups
        taken = torch.zeros(len(self.present), dtype=torch.bool)
        taken[rows] = True
        number = taken.cumsum(0) - 1
        return [number[one[taken[one]]] for one in self.groups if int(taken[one].sum()) > 1]


def _alike(known: Tensor) -> list[Tensor]:
    """The outputs, int64, by which rows know them."""
    found: dict[bytes, list[int]] = {}
    for column, rows in enumerate(known.T):
        found.setdefault(rows.numpy().tobytes(), []).append(column)
    return [torch.tensor(columns) for columns in found.values()]
