"""`manipulation`: whether a pair of image and text is real, what was done to it, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from fusemix_core.boxes import corners
from fusemix_core.data.facts import Fact
from fusemix_core.errors import DataError
from fusemix_core.marked import LEGEND, marked
from fusemix_core.metrics import samples
from fusemix_core.metrics.ranks import roc_auc
from fusemix_core.prediction import Calibration, Columns, Show, Targets, Task
from fusemix_core.sections import Figure, Section
from fusemix_core.tasks.box import best_constant, box_losses, box_metrics, shares_of, written
from fusemix_core.tasks.coding import as_texts, defined, mean_of
from fusemix_core.tasks.tag import (
    marked_words,
    share_logits,
    tag_metrics,
    tags_of,
    token_loss,
    words_of,
)
from fusemix_hammer.building import REAL
from fusemix_hammer.layout import Layout, Parts
from fusemix_hammer.measures import detection, labelling

FACTS = ("types", "box", "words")
SHOWN = 8
"""Fakes of the test rows that the report shows."""


class Manipulation(Task):
    """HAMMER's four targets at once (arXiv 2304.02556): real or fake, which manipulations, the box
    in the image and the words in the text.

    Three facts say what they are, as `fusemix hammer-data` writes them: `types`, `real` or kinds
    with `;` between; `box`, left, top, right and bottom in shares of the image, empty if no region
    was changed; `words`, 0 or 1 for each word of the text. The loss is the weighted sum of two
    cross-entropies, of L1 and 1 - GIoU, and of the mean cross-entropy over words. A row without a
    box has the box of zeros, as in the original.

    Args:
        modality: whose words they are.
        kinds, boxed, length: the kinds of manipulation, those that have a box, and the words of a
            text that are scored; `learn` takes them from the facts.
        weights: of real or fake, kinds, L1, GIoU and words.

    Example:
        fuse(encoders, "fakes/pairs.csv", task="manipulation")
    """

    facts = ()
    primary = "auc"
    fuser = "hammer"
    beside = ()
    placed = True
    views = ("tokens-words", "grid", "tokens")
    usual = {"types": "types:text", "box": "box:box", "words": "words:text"}

    def __init__(
        self,
        *,
        modality: str = "text",
        kinds: Sequence[str] = (),
        boxed: Sequence[str] = (),
        length: int = 0,
        weights: Sequence[float] = (1.0, 1.0, 0.1, 0.1, 1.0),
    ) -> None:
        self.modality, self.kinds, self.boxed = modality, tuple(as_texts(kinds)), tuple(boxed)
        self.weights = tuple(float(one) for one in weights)
        self.layout = Layout(len(self.kinds), length)
        words = (f"{name} {k + 1}" for k in range(length) for name in ("true", "false"))
        edges = ("centre_x", "centre_y", "width", "height")
        self.names = (REAL, "fake", *self.kinds, *edges, *words)

    @classmethod
    def learn(cls, facts: Mapping[str, Fact], **options: Any) -> Manipulation:
        types = kinds_of(_fact(facts, "types"))
        kinds = sorted({kind for row in types for kind in row or ()})
        if not kinds or not any(row == () for row in types):
            missing = "fake" if not kinds else "real"
            raise DataError(
                f"No training row is {missing}: there is nothing to predict.",
                "Its column 'types' says 'real', or kinds with ';' between: fusemix hammer-data",
            )
        has_box = ~_fact(facts, "box").missing
        boxed = [
            kind
            for kind in kinds
            if all(has for row, has in zip(types, has_box, strict=True) if kind in (row or ()))
        ]
        length = max(len(row or ()) for row in tags_of(_fact(facts, "words")))
        learnt: dict[str, Any] = {"kinds": kinds, "boxed": boxed, "length": length}
        return cls(**{**learnt, **{k: v for k, v in options.items() if v not in ((), [], 0)}})

    def targets(self, facts: Mapping[str, Fact]) -> Targets:
        """float32 and bool `[n, C]`, in the order of the scores: 1 where it applies."""
        types = kinds_of(_fact(facts, "types"))
        given = torch.tensor([row is not None for row in types])
        fake = torch.tensor([float(bool(row)) for row in types])
        kinds = torch.tensor(
            [[float(kind in (row or ())) for kind in self.kinds] for row in types]
        ).view(len(types), -1)
        boxes, _ = shares_of(_fact(facts, "box"), "box")
        flags, known = self._words(tags_of(_fact(facts, "words")))
        values = self.layout.joined(
            Parts(torch.stack([1 - fake, fake], dim=1), kinds, boxes, flags)
        )
        rows = given[:, None].expand(-1, self.layout.first)
        of_words = (known & given[:, None])[:, :, None].expand(-1, -1, 2).flatten(1)
        return Targets(values, torch.cat([rows, of_words], dim=1))

    def _words(self, rows: Sequence[tuple[str, ...] | None]) -> tuple[Tensor, Tensor]:
        """One-hot `[n, length, 2]` of words that are true or false, and which there are."""
        flags = np.full((len(rows), self.layout.length), -1, np.int64)
        for line, row in zip(flags, rows, strict=True):
            own = [int(one == "1") for one in (row or ())[: self.layout.length]]
            line[: len(own)] = own
        index = torch.from_numpy(flags)
        return torch.stack([index == 0, index == 1], dim=2).float(), index >= 0

    def responses(self, targets: Targets) -> tuple[Tensor, Tensor]:
        parts = self.layout.split(2 * targets.values - 1)
        boxes = self.layout.split(targets.values).box.clamp(1e-3, 1 - 1e-3).logit()
        values = self.layout.joined(Parts(parts.binary, parts.kinds, boxes, parts.words))
        return values * targets.known, targets.known

    def losses(
        self, scores: Tensor, targets: Targets, weight: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The five losses, unweighted: `binary`, `kinds`, `l1`, `giou` and `words`."""
        given, true = self.layout.split(scores), self.layout.split(targets.values.to(scores))
        known = targets.known[:, 0]
        each = binary_cross_entropy_with_logits(given.kinds, true.kinds, reduction="none")
        l1, overlap = box_losses(given.box.sigmoid(), true.box)
        of_words = self.layout.split(targets.known).words[:, :, 0]
        binary = cross_entropy(given.binary, true.binary, reduction="none")
        return {
            "binary": mean_of(binary, known, weight),
            "kinds": mean_of(each, known[:, None].expand_as(each), weight),
            "l1": mean_of(l1, known, weight),
            "giou": mean_of(overlap, known, weight),
            "words": token_loss(given.words, true.words, of_words, weight),
        }

    def loss(self, scores: Tensor, targets: Targets, weight: Tensor | None = None) -> Tensor:
        found = self.losses(scores, targets, weight).values()
        return torch.stack([w * one for w, one in zip(self.weights, found, strict=True)]).sum()

    def calibrate(self, scores: Tensor, targets: Targets) -> Calibration:
        """None: one scale can't suit logits and boxes."""
        return Calibration()

    def probabilities(self, scores: Tensor) -> Tensor:
        """float `[n, 2]`: real, fake."""
        return self.layout.split(scores).binary.softmax(dim=1)

    def decode(self, scores: Tensor) -> Columns:
        """`prediction` (real or fake), `probability_fake`, the `types`, the `box` if a kind of
        manipulation that has one is found, and `words`: which words, from 1."""
        scores = scores.detach().cpu().double()
        parts = self.layout.split(scores)
        fake = self.probabilities(scores)[:, 1].numpy()
        types = [
            [kind for kind, score in zip(self.kinds, row, strict=True) if score > 0]
            for row in parts.kinds.tolist()
        ]
        edges = torch.cat(corners(parts.box.sigmoid()), dim=1).clamp(0, 1)
        boxes = [
            box if set(found) & set(self.boxed) else ""
            for box, found in zip(written(edges), types, strict=True)
        ]
        flags = parts.words.argmax(dim=2).tolist()
        return {
            "prediction": [(REAL, "fake")[int(p > 0.5)] for p in fake],
            "probability_fake": fake,
            "types": [";".join(found) for found in types],
            "box": boxes,
            "words": [" ".join(str(k + 1) for k, f in enumerate(row) if f) for row in flags],
        }

    def described(self, columns: Columns, items: Mapping[str, Sequence[Any]]) -> Columns:
        """`words` are the words themselves."""
        texts = items.get(self.modality)
        if texts is None:
            return columns
        found = []
        for text, marks in zip(texts, columns["words"], strict=True):
            words = (text if isinstance(text, str) else "").split()
            places = set(map(int, marks.split()))
            flags = [int(k + 1 in places) for k in range(len(words))]
            found.append(marked_words(words, flags, 0, ("0", "1")))
        return {**columns, "words": found}

    def sections(self, scores: Tensor, targets: Targets, show: Show) -> Sequence[Section]:
        """Some of the rows that are fake, with the box and the words that were found."""
        given, true = self.layout.split(scores), self.layout.split(targets.values)
        said = self.decode(scores)
        edges = torch.cat(corners(given.box.sigmoid()), dim=1).tolist()
        wanted = torch.cat(corners(true.box), dim=1).tolist()
        rows = (true.binary[:, 1] > 0).nonzero()[:, 0]
        places = torch.linspace(0, max(0, len(rows) - 1), min(SHOWN, len(rows))).long()
        figures = []
        for row in rows[places].tolist():
            items = show(row)
            image = next((one.image for one in items.values() if one.image is not None), None)
            text = items[self.modality].text if self.modality in items else ""
            flags = (given.words[row, :, 1] > given.words[row, :, 0]).tolist()
            truth = (true.words[row, :, 1] > 0).tolist()
            kinds = [k for k, has in zip(self.kinds, true.kinds[row].tolist(), strict=True) if has]
            title = f"fake {said['probability_fake'][row]:.2f}: {said['types'][row] or 'no kind'}"
            drawn = marked(
                image,
                edges[row] if said["box"][row] else None,
                wanted[row] if true.box[row, 2] > 0 else None,
                words_of(text, flags, truth),
                f"{title} (true: {', '.join(kinds)})".replace(";", ", ").replace("_", " "),
            )
            figures.append(Figure(drawn, alt=title))
        return [Section("Found", LEGEND, figures=figures)] if figures else []

    def metrics(self, scores: Tensor, targets: Targets) -> dict[str, float | None]:
        """Those of the paper: AUC, EER and accuracy of real against fake; mAP, CF1 and OF1 of the
        kinds; IoU and F1 of words, over all rows and, as `…_boxes` and `f1_tagged`, over those that
        have any; and the AUC of each kind by itself against real rows."""
        rows = targets.known[:, 0].cpu()
        if not rows.any():
            raise DataError(
                f"No type is known in any of {len(targets):,} rows: nothing can be measured.",
                "Fill in the column 'types', or predict without measuring.",
            )
        scores, values = scores.detach().cpu().double()[rows], targets.values.cpu()[rows].double()
        given, true = self.layout.split(scores), self.layout.split(values)
        known = self.layout.split(targets.known.cpu()[rows]).words[:, :, 0]
        fake = true.binary[:, 1] > 0
        margin = (given.binary[:, 1] - given.binary[:, 0]).numpy()
        found = detection(margin, fake.numpy())
        found |= labelling(given.kinds.numpy(), true.kinds.numpy() > 0)
        found |= box_metrics(given.box.sigmoid(), true.box)
        words = tag_metrics(given.words.argmax(2), true.words.argmax(2), known, 0)
        found |= {name: words[name] for name in ("precision", "recall", "f1", "f1_tagged")}
        for k, kind in enumerate(self.kinds):
            only = (true.kinds[:, k] > 0) & (true.kinds.sum(dim=1) == 1)
            some = (only | ~fake).numpy()
            found[f"auc_{kind}"] = roc_auc(margin[some], only.numpy()[some])
        return defined(found)

    def resampled(self, scores: Tensor, targets: Targets, times: np.ndarray) -> np.ndarray:
        rows = targets.known[:, 0].cpu().numpy()
        parts = self.layout.split(scores.detach().cpu().double())
        margin = (parts.binary[:, 1] - parts.binary[:, 0]).numpy()
        return samples.roc_auc(
            margin[rows], targets.values.cpu()[:, 1].numpy()[rows] > 0, times[:, rows]
        )

    def baseline(self, targets: Targets) -> Tensor:
        """The best constants: log shares, log odds, a box, and the share of false words at each
        place."""
        true, known = self.layout.split(targets.values), targets.known[:, 0]
        rows = true.binary[known]
        shares = (rows.sum(dim=0) + 1e-3) / (len(rows) + 2e-3)
        odds = (true.kinds[known].sum(dim=0) + 1e-3) / (len(rows) + 2e-3)
        boxes = true.box[known].double()

        def loss(box: Tensor) -> Tensor:
            parts = box_losses(box.sigmoid().expand(len(boxes), -1), boxes)
            return self.weights[2] * parts[0].mean() + self.weights[3] * parts[1].mean()

        box = best_constant(loss, torch.zeros(4)) if len(boxes) else torch.zeros(4)
        of_words = self.layout.split(targets.known).words[:, :, 0]
        words = share_logits(true.words, of_words)
        return torch.cat([shares.log(), odds.logit(), box, words.flatten()]).float()


def kinds_of(fact: Fact) -> list[tuple[str, ...] | None]:
    """The kinds of manipulation of each row; none of them if it is real, None if nobody says."""
    names = [
        tuple(part.strip() for part in name.split(";") if part.strip() not in ("", REAL))
        for name in fact.names
    ]
    return [names[k] if k >= 0 else None for k in fact.values.tolist()]


def _fact(facts: Mapping[str, Fact], name: str) -> Fact:
    """The fact of a name. Raises `DataError` if there is none, or if it has another form."""
    kinds = {"types": ("text", "class"), "box": ("box",), "words": ("text",)}[name]
    if name not in facts or facts[name].kind not in kinds:
        found = "missing" if name not in facts else f"read as {facts[name].kind}"
        raise DataError(
            f"The column '{name}' of manipulations is {found}.",
            f"The table has the columns {', '.join(FACTS)}: fusemix hammer-data writes such a one.",
        )
    return facts[name]
