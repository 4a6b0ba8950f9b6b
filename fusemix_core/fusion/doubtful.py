"""Training rows that the fits without them contradict: wrong labels, or items that don't belong
together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fusemix_core.prediction import Targets, Task

UNLIKELY = 0.05
"""The probability of the given class below which a row is doubtful."""
FAR = 3.0
"""Standard deviations of the residuals beyond which a value is."""


@dataclass(frozen=True)
class Doubt:
    """A row whose target its prediction contradicts.

    Attributes:
        row: its number among the rows given.
        target: as given.
        predicted: by fits that left the row out.
        surprise: minus the logarithm of the target's probability; of a value, how many standard
            deviations it is off.
        by: modality → its own prediction.
        disagree: whether the modalities contradict each other, as they do where the items of a row
            don't belong together.
    """

    row: int
    target: Any
    predicted: Any
    surprise: float
    by: dict[str, Any]
    disagree: bool


def doubtful(
    task: Task, scores: Tensor, parts: Mapping[str, Tensor], targets: Targets, present: Tensor
) -> list[Doubt]:
    """The doubtful rows, the most surprising first.

    Args:
        task: gives classes or values; for any other there are none.
        scores: `[n, C]` of all modalities, by fits that left each row out.
        parts: modality → such scores by only that modality.
        targets: of these rows.
        present: bool `[n, K]`, in the order of `parts`.
    """
    if task.gives not in ("classes", "values"):
        return []
    known = targets.known.nonzero()[:, 0]
    if task.gives == "classes":
        chances = task.probabilities(scores.double())
        surprise = -chances[known, targets.values[known]].clamp_min(1e-12).log()
        far = surprise > -torch.tensor(UNLIKELY).log()
        far &= chances[known].argmax(dim=1) != targets.values[known]
    else:
        off = (scores[known, 0] - targets.values[known]).double()
        surprise = off.abs() / off.std().clamp_min(1e-12)
        far = surprise > FAR
    rows = known[far][surprise[far].argsort(descending=True, stable=True)]
    shown = surprise[far].sort(descending=True, stable=True).values
    predicted = task.decode(scores[rows])["prediction"]
    given = task.decode(_as_scores(task, targets[rows]))["prediction"]
    each = {m: task.decode(one[rows])["prediction"] for m, one in parts.items()}
    found = []
    for i, row in enumerate(rows.tolist()):
        by = {m: _plain(each[m][i]) for k, m in enumerate(parts) if bool(present[row, k])}
        disagree = task.gives == "classes" and len(set(by.values())) > 1
        found.append(
            Doubt(
                row, _plain(given[i]), _plain(predicted[i]), round(float(shown[i]), 3), by, disagree
            )
        )
    return found


def _as_scores(task: Task, targets: Targets) -> Tensor:
    """Scores that decode to the targets."""
    responses, _ = task.responses(targets)
    return responses


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
