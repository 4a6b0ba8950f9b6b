"""Latents and heads of several blocks made into one, without any training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

MERGES = ("mean", "sum", "product", "harmonic")


def merged(latents: Tensor, present: Tensor, how: str) -> Tensor:
    """The latents of the blocks of each row as one.

    Each way gives the latent itself for a row with one modality, but `sum`, which is scaled as if
    all modalities were there. `harmonic` gives the reciprocal of the sum of reciprocal magnitudes,
    and the mean of the phases: for two, that of `harmonic_pair` with equal shares.

    Args:
        latents: `[K, n, c, d]`, anything finite where a modality is missing.
        present: bool `[n, K]`.
        how: one of `MERGES`.

    Returns:
        `[n, c, d]`; complex if the latents are, and for `harmonic`.
    """
    there = present.T[:, :, None, None]
    count = there.sum(dim=0)
    if how == "product":
        return torch.where(there, latents, 1).prod(dim=0)
    if how == "harmonic":
        inverse = torch.where(there, 1 / latents.abs().clamp_min(1e-30), 0).sum(dim=0)
        phase = torch.where(there, latents.angle(), 0).sum(dim=0) / count
        return torch.polar(1 / inverse, phase)
    total = torch.where(there, latents, 0).sum(dim=0)
    return total / count if how == "mean" else total * (len(latents) / count)


def harmonic_pair(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    """The published merge of two latents: magnitude 2 α (1 - α) |a| |b| / (α |b| + (1 - α) |a|),
    and the mean of both phases; always complex."""
    a, b = first.abs(), second.abs()
    magnitude = 2 * alpha * (1 - alpha) * a * b / (alpha * b + (1 - alpha) * a)
    return torch.polar(magnitude, (first.angle() + second.angle()) / 2)


def slerp(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    """Spherical interpolation of two tensors, each as one vector: the direction on the arc between
    both, and the length between both lengths. `first` for alpha 0. If both have the same direction,
    or one is zero, it is on a line."""
    lengths = first.norm(), second.norm()
    if not min(lengths) > 0:
        return torch.lerp(first, second, alpha)
    a, b = first / lengths[0], second / lengths[1]
    cosine = (a * b).sum()
    rest = b - a * cosine
    if rest.norm() < 1e-6:
        return torch.lerp(first, second, alpha)
    angle = alpha * torch.atan2(rest.norm(), cosine)
    direction = a * angle.cos() + rest / rest.norm() * angle.sin()
    return direction * torch.lerp(lengths[0], lengths[1], alpha)


def published_slerp(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    """What the original's code computes instead of `slerp`: `second` counts as a unit vector, and
    `first` keeps its length, so the longer `first` is, the more of it remains. The result is
    `first` if both have the same direction, or one is zero, for which the original gives NaN."""
    lengths = first.norm() * second.norm()
    cosine = (first * second).sum() / lengths if lengths > 0 else first.new_ones(())
    rest = second - first * cosine
    if not (lengths > 0 and cosine.abs() < 1):
        return first.clone()
    angle = alpha * cosine.arccos()
    return first * angle.cos() + rest / rest.norm() * angle.sin()


def linear(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    """Linear interpolation: `first` for alpha 0. In the original's code it is `second`."""
    return torch.lerp(first, second, alpha)


HEADS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "slerp": slerp,
    "published": published_slerp,
    "linear": linear,
}


def merged_heads(
    heads: Sequence[nn.Module], how: str, alpha: float | None = None
) -> dict[str, Tensor]:
    """The weights of one head made of those of several, by their names.

    Args:
        heads: of one shape.
        how: one of `HEADS`, by which each further head is brought in.
        alpha: the share of each head that is brought in; None for equal shares of all.
    """
    found: dict[str, Tensor] = dict(heads[0].named_parameters())
    for number, head in enumerate(heads[1:], 2):
        share = 1 / number if alpha is None else alpha
        found = {n: HEADS[how](found[n], p, share) for n, p in head.named_parameters()}
    return found
