"""How far the neighbourhoods of embeddings are from those of the latents behind them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

Weighting = Literal["none", "inverse"]
Kernel = Literal["cosine", "rbf", "spearman"]
Centring = Literal["mean", "none", "standard"]
Divergence = Literal["repo", "js"]

_EPS = 1e-12
_UNIT = 1e-6
"""Rows whose norms are all so near to 1 are left as they are."""


def structure(
    latents: Tensor,
    embeddings: Tensor,
    *,
    temperature: float = 0.05,
    levels: int = 1,
    weighting: Weighting = "none",
    divergence: Divergence = "repo",
    kernel: Kernel = "cosine",
    centring: Centring = "mean",
    centre_first: bool = False,
    margin: float = 0.0,
) -> Tensor:
    """The regulariser of latents `[n, d]` and embeddings `[n, e]`, row i of both one item.

    P and Q are the softmax over each row of both similarity matrices, over `temperature`; a row's
    own similarity counts. Similarities are inner products, exp(-|x_i - x_j|²) (`rbf`, without
    temperature), or the cosines of the rows' ranks over their features (`spearman`, which has no
    gradient). The centring `standard` also divides columns by their deviation; one that does not
    vary is 0. For level l = 1 … levels their matrix powers P^l and Q^l are compared:
    with M their mean, (KL(M‖P^l) + KL(M‖Q^l)) / 2n (`repo`), or the Jensen-Shannon divergence that
    the paper names, (KL(P^l‖M) + KL(Q^l‖M)) / 2n (`js`). What exceeds `margin` is weighted 1 or 1/l
    and averaged over the levels.
    """
    prepared = (_prepared(x, centring, centre_first) for x in (latents, embeddings))
    p, q = (_similarities(x, kernel, temperature).softmax(dim=1) for x in prepared)
    total = p.new_zeros(())
    p_level, q_level = p, q
    for level in range(1, levels + 1):
        if level > 1:
            p_level, q_level = p_level @ p, q_level @ q
        found = _divergence(p_level, q_level, divergence) / len(p)
        total = total + (found - margin).relu() / (level if weighting == "inverse" else 1)
    return total / levels


def _prepared(x: Tensor, centring: Centring, centre_first: bool) -> Tensor:
    if centre_first:
        return _unit(_centred(x, centring))
    return _centred(_unit(x), centring)


def _unit(x: Tensor) -> Tensor:
    already = ((x.norm(dim=1) - 1).abs() <= _UNIT).all()
    return torch.where(already, x, normalize(x, dim=1, eps=1e-12))


def _centred(x: Tensor, centring: Centring) -> Tensor:
    if centring == "none":
        return x
    centred = x - x.mean(dim=0)
    if centring == "mean":
        return centred
    variance = x.var(dim=0)
    varies = variance > (8 * torch.finfo(x.dtype).eps * x.abs().amax(dim=0)) ** 2
    return torch.where(varies, centred / torch.where(varies, variance, 1).sqrt(), 0)


def _similarities(x: Tensor, kernel: Kernel, temperature: float) -> Tensor:
    if kernel == "rbf":
        return (-(x[:, None] - x[None]).square().sum(dim=2)).exp()
    if kernel == "spearman":
        x = normalize(x.argsort(dim=1).argsort(dim=1).to(x.dtype), dim=1)
    return x @ x.T / temperature


def _divergence(p: Tensor, q: Tensor, how: Divergence) -> Tensor:
    mean = (p + q) / 2
    if how == "js":
        return (_kl(p, mean) + _kl(q, mean)) / 2
    return (_kl(mean, p) + _kl(mean, q)) / 2


def _kl(first: Tensor, second: Tensor) -> Tensor:
    """Σ over all entries."""
    return ((first + _EPS) * ((first + _EPS).log() - (second + _EPS).log())).sum()
