"""`box`: where in an image something is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.boxes import corners, giou, iou, of_corners, says_none
from fusemix_core.data.facts import Fact
from fusemix_core.errors import DataError
from fusemix_core.marked import LEGEND, marked
from fusemix_core.prediction import Calibration, Columns, Show, Targets, Task
from fusemix_core.sections import Figure, Section
from fusemix_core.tasks.coding import defined, fact_of, known_rows, mean_of

STEPS = (0.3, 0.1, 0.03, 0.01)
"""Steps of the search for the best constant box, in logits."""
SHOWN = 8
"""Rows that the report shows."""
_LEAST = 1e-3
"""Shares are so far from 0 and 1, at least, where their logits are fitted."""
_NAMES = ("centre_x", "centre_y", "width", "height")


class Box(Task):
    """A box per row, in shares of the image's width and height: scores are the logits of its
    centre, width and height.

    The loss is the L1 distance of these four plus 1 - GIoU (arXiv 1902.09630), as in DETR and
    HAMMER. A box without area, `0,0,0,0`, says that there is none: the prediction is pulled to
    nothing, and counts as right only if all its corners are below 0.0001, the rule of HAMMER's
    code. An empty cell is not learnt or measured.

    Args:
        l1: the weight of the L1 distance.
        giou: the weight of 1 - GIoU.

    Example:
        task = Box.learn({"target": Fact("box", corners_of_rows)})
        task.metrics(scores, task.targets(facts))["iou_boxes"]
    """

    primary = "iou_boxes"
    kind = "box"
    views = ("grid", "tokens")
    fuser = "attention"
    beside = ("concat", "block")
    placed = True
    names = _NAMES

    def __init__(self, *, l1: float = 1.0, giou: float = 1.0) -> None:
        self.l1, self.giou = l1, giou

    @classmethod
    def learn(cls, facts: Mapping[str, Fact], **options: Any) -> Box:
        fact = fact_of(facts, "target")
        shares_of(fact, "target")
        area = fact.values[~fact.missing]
        if not (area[:, 2:] > area[:, :2]).all(axis=1).any():
            raise DataError(
                "The target has no box with an area in the training rows.",
                "Name a column of boxes, left,top,right,bottom: --target COLUMN:box",
            )
        return cls(**options)

    def targets(self, facts: Mapping[str, Fact]) -> Targets:
        """float32 `[n, 4]`, centre and size, and bool `[n]`."""
        boxes, known = shares_of(facts["target"], "target")
        return Targets(boxes, known)

    def responses(self, targets: Targets) -> tuple[Tensor, Tensor]:
        known = targets.known[:, None].expand(-1, 4)
        return targets.values.clamp(_LEAST, 1 - _LEAST).logit() * known, known

    def loss(self, scores: Tensor, targets: Targets, weight: Tensor | None = None) -> Tensor:
        l1, overlap = box_losses(scores.sigmoid(), targets.values)
        return mean_of(self.l1 * l1 + self.giou * overlap, targets.known, weight)

    def calibrate(self, scores: Tensor, targets: Targets) -> Calibration:
        """None: scores are boxes already."""
        return Calibration()

    def probabilities(self, scores: Tensor) -> Tensor:
        """float `[n, 4]`: left, top, right and bottom."""
        return torch.cat(corners(scores.sigmoid()), dim=1).clamp(0, 1)

    def decode(self, scores: Tensor) -> Columns:
        """`prediction` is `left,top,right,bottom`, which the kind `box` reads."""
        return {"prediction": written(self.probabilities(scores.detach().cpu().double()))}

    def sections(self, scores: Tensor, targets: Targets, show: Show) -> Sequence[Section]:
        """Some images of test rows with the box that was found, and the true one."""
        edges = self.probabilities(scores.double()).tolist()
        true = torch.cat(corners(targets.values), dim=1).tolist()
        figures = []
        for row in examples_of(targets.rows):
            image = next((one.image for one in show(row).values() if one.image is not None), None)
            if image is not None:
                drawn = marked(image, edges[row], true[row])
                figures.append(Figure(drawn, alt="An image with the found and the true box"))
        return [Section("Boxes", LEGEND, figures=figures)] if figures else []

    def metrics(self, scores: Tensor, targets: Targets) -> dict[str, float | None]:
        """Mean IoU and the shares of rows above 0.5 and 0.75: of all known rows, and, as
        `…_boxes`, of those that have a box."""
        given, boxes = known_rows(scores, targets)
        return defined(box_metrics(given.sigmoid(), boxes.double()))

    def baseline(self, targets: Targets) -> Tensor:
        values, _ = self.responses(targets[targets.rows])
        start = values.median(dim=0).values if len(values) else torch.zeros(4)
        return best_constant(lambda x: self.loss(x.expand(len(targets), -1), targets), start)


def examples_of(known: Tensor) -> list[int]:
    """The numbers of a few known rows, from all over them."""
    rows = known.nonzero()[:, 0]
    places = torch.linspace(0, max(0, len(rows) - 1), min(SHOWN, len(rows))).long()
    return rows[places].tolist()


def shares_of(fact: Fact, what: str) -> tuple[Tensor, Tensor]:
    """The boxes of a fact as centre and size, float32 `[n, 4]`, and which are known, bool `[n]`.

    Raises:
        DataError: the fact has no boxes, or some are not in shares of the image.
    """
    if fact.kind != "box":
        raise DataError(
            f"The {what} has {fact.kind}s, not boxes.",
            f"Name a column of boxes, left,top,right,bottom: --target {what.upper()}:box",
        )
    known = ~fact.missing
    values = np.where(known[:, None], fact.values, 0.0).astype(np.float32)
    wrong = np.flatnonzero((values < 0).any(axis=1) | (values > 1).any(axis=1))
    if len(wrong):
        raise DataError(
            f"The {what} has {len(wrong):,} boxes that reach beyond 0 to 1, first in row "
            f"{int(wrong[0]) + 1:,} of these.",
            "Divide their edges by the width and the height of the image.",
        )
    turned = np.flatnonzero((values[:, 2:] < values[:, :2]).any(axis=1))
    if len(turned):
        raise DataError(
            f"The {what} has {len(turned):,} boxes that end before they begin, first in row "
            f"{int(turned[0]) + 1:,} of these.",
            "If they are left, top, width and height: --target COLUMN:xywh",
        )
    return of_corners(torch.from_numpy(values)), torch.from_numpy(known)


def box_losses(predicted: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """L1 distance and 1 - GIoU, each `[n]`, of boxes `[n, 4]` that are centre and size."""
    wanted = wanted.to(predicted)
    return (predicted - wanted).abs().sum(dim=1), 1 - giou(predicted, wanted)


def box_metrics(predicted: Tensor, wanted: Tensor) -> dict[str, float]:
    """The measures of `Box.metrics`, NaN if no row counts for one.

    Args:
        predicted, wanted: `[n, 4]`, centre and size.
    """
    there = (wanted[:, 2:] > 0).all(dim=1)
    found = torch.where(there, iou(predicted, wanted), says_none(predicted).to(predicted.dtype))
    every = {"iou": found, "iou50": (found > 0.5).double(), "iou75": (found > 0.75).double()}
    some = {f"{name}_boxes": values[there] for name, values in every.items()}
    return {
        name: float(values.double().mean()) if len(values) else float("nan")
        for name, values in {**every, **some}.items()
    }


def best_constant(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Constant scores float32 `[C]` from which no `STEPS` of one coordinate lowers the loss."""
    best, least = start.float().clone(), float(loss(start.double()))
    improved = True
    while improved:
        improved = False
        for step in STEPS:
            for k in range(len(best)):
                for sign in (-1, 1):
                    moved = best.clone()
                    moved[k] += sign * step
                    found = float(loss(moved.double()))
                    if found < least - 1e-9:
                        best, least, improved = moved, found, True
    return best


def written(boxes: Tensor) -> list[str]:
    """Boxes `[n, 4]` as texts."""
    return [",".join(f"{x:.4g}" for x in box) for box in boxes.tolist()]
