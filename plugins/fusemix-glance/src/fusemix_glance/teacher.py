"""`Teacher`: how sure a linear classifier of single windows is of a clip's true class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn.functional import one_hot

RANK = 64
"""Principal components per modality."""
CHUNK = 64
"""Clips that are added at once."""


class Teacher:
    """Ridge regression from a window and its sound to the class of the whole clip.

    The confidences of a clip are those of a classifier fitted to all other clips, exactly: the
    clip's own sums are taken from the sums of all.

    Args:
        samples: modality → standardised tokens `[m, d]`, for principal components.
        classes: how many.
    """

    def __init__(self, samples: Mapping[str, Tensor], classes: int) -> None:
        self.classes = classes
        self.axes = {m: _axes(rows) for m, rows in samples.items()}
        width = 1 + sum(axes.shape[1] for axes in self.axes.values())
        self.gram = torch.zeros(width, width, dtype=torch.float64)
        self.cross = torch.zeros(width, classes, dtype=torch.float64)

    def features(self, parts: Mapping[str, Tensor], valid: Tensor) -> Tensor:
        """float64 `[n, N, D]`, a row per window.

        Args:
            parts: modality → standardised tokens `[n, N, d]`, 0 if one is missing.
            valid: bool `[n, N]`. Other rows are 0.
        """
        own = [parts[m] @ axes.to(parts[m]) for m, axes in self.axes.items()]
        rows = torch.cat([torch.ones_like(own[0][..., :1]), *own], dim=2)
        return (rows * valid[..., None]).double()

    def learn(self, clips: Iterator[tuple[Tensor, Tensor]]) -> None:
        """Add clips: features `[n, N, D]`, and the classes `[n]` of the clips."""
        for features, labels in clips:
            self.gram += torch.einsum("nwd,nwe->de", features, features)
            self.cross += features.sum(dim=1).T @ one_hot(labels, self.classes).double()

    def confidence(self, features: Tensor, labels: Tensor) -> Tensor:
        """float32 `[n, N]`: the score of the true class in each window of a clip that was learnt,
        when this clip is left out."""
        own = one_hot(labels, self.classes).double()
        gram = self.gram.to(features) - features.mT @ features
        cross = self.cross.to(features) - features.sum(dim=1)[..., None] * own[:, None]
        penalty = self.gram.diagonal().sum() / max(1.0, float(self.gram[0, 0]))
        eye = torch.eye(len(self.gram), dtype=gram.dtype, device=gram.device)
        weights = torch.linalg.solve(gram + penalty * eye, cross @ own[..., None])
        return (features @ weights)[..., 0].float()


def _axes(rows: Tensor) -> Tensor:
    """`[d, RANK]` at most."""
    return torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False).Vh[:RANK].T
