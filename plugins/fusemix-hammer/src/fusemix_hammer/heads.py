"""HAMMER's heads on tokens: whether a pair is real, what is wrong with it, and where."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from fusemix_core.boxes import giou

LABELS = ("face_swap", "face_attribute", "text_swap", "text_attribute")


class ManipulationHeads(nn.Module):
    """The four heads on tokens of one width (arXiv 2304.02556), each of which begins with the cls.

    `heads` is the number of attention heads, by which the width can be divided; `labels` the number
    of manipulations.
    """

    def __init__(self, width: int, heads: int = 12, labels: int = len(LABELS)) -> None:
        super().__init__()
        self.binary_head = mlp(width, 2)
        self.multi_head = mlp(width, labels)
        self.box_head = mlp(width, 4)
        self.token_head = nn.Linear(width, 2)
        self.local_norm, self.aggregate_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.local = nn.MultiheadAttention(width, heads, batch_first=True)
        self.aggregate = nn.MultiheadAttention(width, heads, batch_first=True)
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, width))

    def forward(
        self, image: Tensor, text: Tensor, mask: Tensor, fused: Tensor, seen: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What is predicted, from tokens of the image `[n, P, w]` and of the text `[n, T, w]`, the
        mask of the latter `[n, T]`, and the multimodal encoder's tokens `[n, T, w]`. `seen`, bool
        `[n, P]`, is the mask of the image's tokens, if some aren't there.

        binary: logits `[n, 2]` of real and fake. multi: logits `[n, 4]` of `LABELS`. box: `[n, 4]`,
        centre, width and height in [0, 1]. token: logits `[n, T - 1, 2]` of real and fake words.
        """
        place = self.place(image, text, mask.bool(), seen)
        return {
            "binary": self.binary_head(fused[:, 0]),
            "multi": self.multi_head(fused[:, 0]),
            "box": self.box_head(place).sigmoid(),
            "token": self.token_head(fused[:, 1:]),
        }

    def place(
        self, image: Tensor, text: Tensor, mask: Tensor, seen: Tensor | None = None
    ) -> Tensor:
        """`[n, w]`: the image's patches, after a look at the text, as a learnt query sums them; the
        box is a function of it. An image without patches has the sum of nothing but zeros."""
        if seen is not None:
            image = image.masked_fill(~seen[:, :, None], 0.0)
        words = self.local_norm(text)
        looked, _ = self.local(
            self.local_norm(image), words, words, key_padding_mask=~mask, need_weights=False
        )
        patches = self.aggregate_norm((image + looked)[:, 1:])
        query = self.aggregate_norm(self.query.expand(len(image), -1, -1))
        hidden = None
        if seen is not None:  # all of them, where there is none: attention to nothing is undefined
            hidden = ~(seen[:, 1:] | ~seen[:, 1:].any(dim=1, keepdim=True))
        summed = self.aggregate(
            query, patches, patches, key_padding_mask=hidden, need_weights=False
        )
        return summed[0][:, 0]


def mlp(width: int, outputs: int) -> nn.Sequential:
    """Three layers, the inner ones twice as wide, each with a norm and a GELU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        fc0=nn.Linear(width, 2 * width),
        norm0=nn.LayerNorm(2 * width),
        gelu0=nn.GELU(),
        fc1=nn.Linear(2 * width, 2 * width),
        norm1=nn.LayerNorm(2 * width),
        gelu1=nn.GELU(),
        fc2=nn.Linear(2 * width, outputs),
    )
    return nn.Sequential(layers)


def head_losses(
    predicted: Mapping[str, Tensor],
    real: Tensor,
    labels: Tensor,
    boxes: Tensor,
    fake_words: Tensor,
    mask: Tensor,
    *,
    smoothing: float = 0.0,
    taught: Tensor | None = None,
    alpha: float = 0.0,
) -> dict[str, Tensor]:
    """The five losses of the predictions of `ManipulationHeads`, unweighted.

    real: bool `[n]`; labels `[n, 4]` of `LABELS`; boxes `[n, 4]`, zero for a whole picture;
    fake_words and mask `[n, T - 1]`, of the words after the cls; taught: see `token_loss`.
    """
    l1, giou = box_losses(predicted["box"], boxes)
    given = predicted["token"], fake_words, mask.bool()
    return {
        "binary": cross_entropy(predicted["binary"], (~real.bool()).long()),
        "multi_label": binary_cross_entropy_with_logits(
            predicted["multi"], labels.to(predicted["multi"].dtype)
        ),
        "box_l1": l1,
        "box_giou": giou,
        "token": token_loss(*given, smoothing=smoothing, taught=taught, alpha=alpha),
    }


def token_loss(
    logits: Tensor,
    fake: Tensor,
    mask: Tensor,
    *,
    smoothing: float = 0.0,
    taught: Tensor | None = None,
    alpha: float = 0.0,
) -> Tensor:
    """The mean over words, where bool `mask [n, T]` is true, of the cross-entropy of logits
    `[n, T, 2]` with fake `[n, T]`, 1 for a fake word, smoothed.

    With `taught`, the logits of an averaged head, it is (1 - alpha) of that and alpha of the
    cross-entropy with their softmax.
    """
    own = logits[mask]
    hard = cross_entropy(own, fake[mask].long(), label_smoothing=smoothing)
    if taught is None:
        return hard
    soft = cross_entropy(own, taught[mask].detach().softmax(dim=1))
    return (1 - alpha) * hard + alpha * soft


def box_losses(
    predicted: Tensor, wanted: Tensor, skip: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(L1, 1 - GIoU) of boxes `[n, 4]`, summed and divided by n; without the boxes, and divided by
    the number of the others, where bool `skip [n]` is true."""
    keep = torch.ones(len(predicted), dtype=torch.bool, device=predicted.device)
    if skip is not None:
        keep = ~skip.bool()
    l1 = (predicted - wanted)[keep].abs().sum()
    return l1 / keep.sum(), (1 - giou(predicted, wanted))[keep].sum() / keep.sum()
