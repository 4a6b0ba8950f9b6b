"""The measures by which STRUCTURE's code judges latents and embeddings.

Rows are items: a `[n, d]` and b `[n, e]`, row i of both the same one. Each function keeps a matrix
`[n, n]`, and follows the code (arXiv 2506.16895) in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.evaluation.similarity import hsic

KS = (1, 5, 10)


def hcs(a: Tensor, b: Tensor, *, temperature: float = 0.05, levels: int = 3) -> float:
    """Hierarchical consistency: exp(-D), 1 if both have the same neighbourhoods.

    D is the mean over levels of the Jensen-Shannon divergence of P^l and Q^l over l, P and Q as in
    the regulariser. As in the code the divergence is a sum over rows, not their mean, and rows of
    unit norm are lessened by the column means of the rows before that.
    """
    p, q = (_neighbourhoods(x.double(), temperature) for x in (a, b))
    total, p_level, q_level = 0.0, p, q
    for level in range(1, levels + 1):
        if level > 1:
            p_level, q_level = p_level @ p, q_level @ q
        mean = (p_level + q_level) / 2 + 1e-8
        parts = [(x.xlogy(x) - x * mean.log()).sum() for x in (p_level, q_level)]
        total += ((parts[0] + parts[1]) / 2).item() / level
    return math.exp(-total / levels)


def l_hop_cka(a: Tensor, b: Tensor, *, hops: int = 3, unbiased: bool = False) -> float:
    """CKA of the first `hops` matrix powers of the cosines, that of power l weighted 1/l, over
    `hops`."""
    k, m = (x @ x.T for x in (normalize(x.double(), dim=1) for x in (a, b)))
    total, k_hop, m_hop = 0.0, k, m
    for hop in range(1, hops + 1):
        if hop > 1:
            k_hop, m_hop = k_hop @ k, m_hop @ m
        both, own, other = (
            hsic(x, y, unbiased=unbiased)
            for x, y in ((k_hop, m_hop), (k_hop, k_hop), (m_hop, m_hop))
        )
        total += both / (math.sqrt(max(own * other, 0.0)) + 1e-6) / hop
    return total / hops


def purity(x: Tensor, labels: Tensor) -> float:
    """The share of rows whose nearest other row, by cosine, has the same label (int64 `[n]`)."""
    return _same_label(_cosines(x, x).fill_diagonal_(-math.inf), labels)


def cross_purity(a: Tensor, b: Tensor, labels: Tensor) -> float:
    """The share of rows whose nearest row in the other set has the same label, a mean of both
    directions."""
    cosines = _cosines(a, b)
    return (_same_label(cosines, labels) + _same_label(cosines.T, labels)) / 2


def matrix_entropy(x: Tensor, alpha: float = 1.0) -> float:
    """Rényi's entropy, for alpha 1 Shannon's, of the eigenvalues of XᵀX over their sum, in nats."""
    values = torch.linalg.svdvals(x.double()).square()
    p = values / values.sum()
    p = p[p > 1e-12]
    if alpha == 1:
        return -(p * p.log()).sum().item()
    return (p**alpha).sum().log().item() / (1 - alpha)


def retrieval_at(
    queries: Tensor, gallery: Tensor, groups: Tensor | None = None, ks: Sequence[int] = KS
) -> dict[str, float]:
    """R@k, P@k and MAP@k of queries `[n, d]` in a gallery `[n, d]` by cosine, in 0..1.

    Relevant to query i is gallery row i, or with groups (int64 `[n]`) each row of its group. R is
    whether any of the first k is relevant, P the share of them, AP@k the precisions at the places
    of the relevant ones among the first k, over the smaller of k and their number. Raises
    `ConfigError` for a k beyond the gallery.
    """
    n = len(gallery)
    if not 1 <= min(ks) <= max(ks) <= n:
        raise ConfigError(f"The first {max(ks)} of {n} items can't be had.", "Take fewer.")
    groups = torch.arange(n) if groups is None else groups
    relevant = groups[:, None] == groups[None]
    order = _cosines(queries, gallery).argsort(dim=1, descending=True)
    hits = relevant.gather(1, order).double()  # [n, n], best first
    found: dict[str, float] = {}
    for k in ks:
        top = hits[:, :k]
        precision = top.cumsum(1) / torch.arange(1, k + 1)
        most = relevant.sum(1).clamp(max=k)
        found[f"r{k}"] = top.any(dim=1).double().mean().item()
        found[f"p{k}"] = top.mean().item()
        found[f"map{k}"] = ((precision * top).sum(1) / most).mean().item()
    return found


def _neighbourhoods(x: Tensor, temperature: float) -> Tensor:
    x = x / (x.norm(dim=1, keepdim=True) + 1e-8) - x.mean(dim=0)
    return (x @ x.T / temperature).softmax(dim=1)


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    return normalize(a.double(), dim=1) @ normalize(b.double(), dim=1).T


def _same_label(cosines: Tensor, labels: Tensor) -> float:
    return (labels[cosines.argmax(dim=1)] == labels).double().mean().item()
