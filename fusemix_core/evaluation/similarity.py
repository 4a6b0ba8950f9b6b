"""How alike two encoders see the same items, measured without training anything.

Every function takes latents a `[n, d]` and b `[n, e]`, row i of both the same item, and keeps
matrices `[n, n]`: a few thousand items are enough. The maths is that of Huh et al., "The Platonic
Representation Hypothesis" (arXiv 2405.07987), as its code has it, unless said otherwise.

`fusemix rank` shows those that `measures` lists. The others are public too, for comparisons of your
own: nothing in fusemix calls them, and parity tests hold them to the papers' numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.devices import exact_device
from fusemix_core.errors import ConfigError

_TINY = 1e-6
"""Added to what a CKA is divided by, as in the original."""


def neighbours(x: Tensor, k: int) -> Tensor:
    """int64 `[n, k]`: the k rows with the largest inner product with each, itself apart, best
    first. Raises `ConfigError` unless 1 ≤ k < n."""
    if not 1 <= k < len(x):
        raise ConfigError(f"{k} neighbours of {len(x)} items can't be had.", "Take fewer.")
    return (x @ x.T).fill_diagonal_(-math.inf).topk(k, dim=1).indices


def mutual_knn(a: Tensor, b: Tensor, k: int = 10) -> float:
    """The share of its k nearest that an item has in both, a mean over items, in [0, 1]."""
    return _shared(_member(neighbours(a, k)), _member(neighbours(b, k)))


def cycle_knn(a: Tensor, b: Tensor, k: int = 10) -> float:
    """The share of items that are among the neighbours in a of one of their neighbours in b."""
    back = _member(neighbours(a, k))[neighbours(b, k)]  # [n, k, n]
    own = torch.arange(len(a), device=a.device)
    return back[own, :, own].any(dim=1).cpu().double().mean().item()


def lcs_knn(a: Tensor, b: Tensor, k: int = 10) -> float:
    """The mean length of the longest common subsequence of both lists of neighbours, in [0, k]."""
    same = neighbours(a, k)[:, :, None] == neighbours(b, k)[:, None, :]
    length = same.new_zeros(len(a), k + 1, k + 1, dtype=torch.int64)
    for i in range(k):
        for j in range(k):
            longer = torch.maximum(length[:, i, j + 1], length[:, i + 1, j])
            length[:, i + 1, j + 1] = torch.where(same[:, i, j], length[:, i, j] + 1, longer)
    return length[:, k, k].cpu().double().mean().item()


def edit_distance_knn(a: Tensor, b: Tensor, k: int = 10) -> float:
    """1 - the mean Levenshtein distance of both lists of neighbours, over k; in [0, 1]."""
    same = neighbours(a, k)[:, :, None] == neighbours(b, k)[:, None, :]
    steps = torch.arange(k + 1, device=a.device)
    distance = torch.zeros(len(a), k + 1, k + 1, dtype=torch.int64, device=a.device)
    distance[:, :, 0], distance[:, 0, :] = steps, steps
    for i in range(k):
        for j in range(k):
            moved = torch.minimum(distance[:, i, j + 1], distance[:, i + 1, j]) + 1
            kept = distance[:, i, j] + (~same[:, i, j]).long()
            distance[:, i + 1, j + 1] = torch.minimum(moved, kept)
    return 1 - distance[:, k, k].cpu().double().mean().item() / k


Sigma = float | Literal["median"] | None


def kernel(x: Tensor, sigma: Sigma = None) -> Tensor:
    """`[n, n]`: inner products, or with sigma exp(-|x_i - x_j|² / 2 sigma²).

    With `median` sigma² is the median (the lower of two) of the squared distances that are not 0.
    """
    if sigma is None:
        return x @ x.T
    squares = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()
    if sigma != "median":
        variance = sigma**2
    elif not squares.any():
        return torch.ones_like(squares)
    else:
        variance = squares[squares > 0].median()
    return (squares / (-2 * variance)).exp()


def hsic(k: Tensor, m: Tensor, *, unbiased: bool = False) -> float:
    """The Hilbert-Schmidt independence criterion of two kernel matrices `[n, n]`.

    Biased: tr(K H M H), not divided by n. Unbiased (Song et al., 2012): of diagonals set to 0;
    needs n ≥ 4.
    """
    n = len(k)
    if not unbiased:
        return (_centred(k) * _centred(m).T).sum().item()
    if n < 4:
        raise ConfigError(f"An unbiased HSIC of {n} items can't be had.", "It takes 4 or more.")
    k, m = k.clone().fill_diagonal_(0), m.clone().fill_diagonal_(0)
    products = (k * m.T).sum()
    means = k.sum() * m.sum() / ((n - 1) * (n - 2))
    across = 2 * (k.sum(0) * m.sum(1)).sum() / (n - 2)
    return ((products + means - across) / (n * (n - 3))).item()


def cka(
    a: Tensor,
    b: Tensor,
    *,
    sigma: Sigma = None,
    unbiased: bool = True,
    tiny: float = _TINY,
) -> float:
    """Centred kernel alignment, linear or of a Gaussian kernel of width sigma; at most 1.

    The biased form grows with the width of the latents: unrelated ones of 1,000 dimensions and 500
    items have 0.7. `tiny` is added to what is divided by: 0 for CKA free of scale, as Freeze-Align
    (arXiv 2409.19425) has it.
    """
    return _cka(kernel(a, sigma), kernel(b, sigma), unbiased, tiny)


def local_cka(a: Tensor, b: Tensor, anchors: int) -> Tensor:
    """`[n - anchors, n - anchors]`: how well row i of a and row j of b match, given known pairs.

    The first `anchors` rows are these; entry (i, j) is the linear, biased CKA of them and row
    anchors + i of a with them and row anchors + j of b (arXiv 2401.05224). Raises `ConfigError`
    unless 1 ≤ anchors < n.
    """
    if not 1 <= anchors < len(a):
        raise ConfigError(f"{len(a)} items can't have {anchors} anchors.", "Take fewer.")
    return _local_kernels(a, anchors) @ _local_kernels(b, anchors).T


def _local_kernels(x: Tensor, anchors: int) -> Tensor:
    """`[n - anchors, (anchors + 1)²]`: each row's centred kernel with the anchors, of unit norm."""
    known = x[:anchors].expand(len(x) - anchors, -1, -1)
    sets = torch.cat([x[anchors:, None], known], dim=1)
    k = sets @ sets.transpose(1, 2)
    means = k.mean(dim=1, keepdim=True)
    centred = k - means - means.transpose(1, 2) + means.mean(dim=2, keepdim=True)
    return normalize(centred.flatten(1), dim=1)


def cknna(a: Tensor, b: Tensor, k: int = 10, *, unbiased: bool = True) -> float:
    """CKA of inner products that counts only pairs of items that are near in both.

    A pair counts where the second item is among the k nearest of the first; the norms of a and of b
    each take the pairs near in that one. In the biased form an item may be near to itself.
    """
    return _cknna(kernel(a), kernel(b), k, unbiased)


def svcca(a: Tensor, b: Tensor, dim: int = 10) -> float:
    """The mean canonical correlation of the first `dim` singular directions of standardised a and
    b, exactly; the original's singular vectors are randomised, and differ in the second digit.

    Raises `ConfigError` if there are not so many directions.
    """
    if not 1 <= dim <= min(len(a) - 1, a.shape[1], b.shape[1]):
        raise ConfigError(f"svcca can't take {dim} directions of {list(a.shape)}.", "Take fewer.")
    return _correlation(_left(a, dim), _left(b, dim))


def clip_outliers(
    x: Tensor, quantile: float = 0.95, how: Literal["exact", "mean"] = "mean"
) -> Tensor:
    """x `[n, …]` clamped to [-v, v], as the original does before it normalises.

    v is the value at floor(quantile · count) of all sorted magnitudes (`exact`), or the mean over
    items of the quantile of each item's own (`mean`).
    """
    sizes = x.abs().flatten(1)
    if how == "exact":
        ordered = sizes.flatten().sort().values
        limit = ordered[min(int(quantile * len(ordered)), len(ordered) - 1)]
    else:
        limit = sizes.quantile(quantile, dim=1).mean()
    return x.clamp(-limit, limit)


def distinct_pairs(links: Tensor, seed: int = 0) -> Tensor:
    """int64 `[n, 2]`: whole rows of links `[m, 2]`, in an order drawn by seed, in which no item
    occurs twice: of an image given twice each would be the other's nearest."""
    links = links[(links >= 0).all(dim=1)]
    links = links[torch.randperm(len(links), generator=torch.Generator().manual_seed(seed))]
    for column in range(2):
        _, first = np.unique(links[:, column].numpy(), return_index=True)
        links = links[torch.from_numpy(np.sort(first))]
    return links


def best_layers(a: Tensor, b: Tensor, k: int = 10) -> tuple[float, tuple[int, int]]:
    """(mutual_knn, (layer of a, layer of b)) of the pair of layers that are most alike.

    a `[n, L, d]`, b `[n, M, e]`; rows are normalised layer by layer. Of equals the first counts,
    a's layers outermost. The best of many pairs is high by chance too: compare it with the best of
    shuffled items.
    """
    near = [
        [_member(neighbours(normalize(x[:, i], dim=-1), k)) for i in range(x.shape[1])]
        for x in (a, b)
    ]
    scores = torch.tensor([[_shared(x, y) for y in near[1]] for x in near[0]], dtype=torch.float64)
    best = int(scores.flatten().argmax())
    return scores.flatten()[best].item(), divmod(best, scores.shape[1])


def _member(index: Tensor) -> Tensor:
    """bool `[n, n]` of neighbours `[n, k]`."""
    found = torch.zeros(len(index), len(index), dtype=torch.bool, device=index.device)
    return found.scatter_(1, index, True)


def _shared(a: Tensor, b: Tensor) -> float:
    """The share of members, the same number in each row, that two masks have in common."""
    return (a & b).sum().item() / int(a.sum())


def _cka(k: Tensor, m: Tensor, unbiased: bool = True, tiny: float = _TINY) -> float:
    both, first, second = (hsic(x, y, unbiased=unbiased) for x, y in ((k, m), (k, k), (m, m)))
    return _aligned(both, first, second, tiny)


def _cknna(first: Tensor, second: Tensor, k: int, unbiased: bool = True) -> float:
    products = (first, second)
    masks = []
    for gram in products:
        seen = gram.clone().fill_diagonal_(-math.inf) if unbiased else gram
        masks.append(_member(seen.topk(k, dim=1).indices).to(gram.dtype))

    def near(i: int, j: int) -> float:
        mask = masks[i] * masks[j]
        return hsic(mask * products[i], mask * products[j], unbiased=unbiased)

    return _aligned(near(0, 1), near(0, 0), near(1, 1))


def _correlation(a: Tensor, b: Tensor) -> float:
    """The mean canonical correlation of orthonormal columns."""
    return torch.linalg.svdvals(a.T @ b).mean().item()


def _centred(k: Tensor) -> Tensor:
    """H K H."""
    return k - k.mean(0, keepdim=True) - k.mean(1, keepdim=True) + k.mean()


def _aligned(both: float, first: float, second: float, tiny: float = _TINY) -> float:
    divisor = math.sqrt(max(first * second, 0.0)) + tiny
    return both / divisor if divisor else math.nan


def _left(x: Tensor, dim: int) -> Tensor:
    """The first left singular vectors `[n, dim]` of the standardised columns."""
    x = x.to(exact_device(x.device)).double()
    standard = (x - x.mean(0)) / (x.std(0) + 1e-8)
    return torch.linalg.svd(standard, full_matrices=False).U[:, :dim]


@dataclass(frozen=True)
class Measure:
    """A measure in two steps, so that shuffled items cost little: what it makes of latents, and how
    it compares two of these. `square`: what it makes is `[n, n]`, items both ways."""

    prepare: Callable[[Tensor], Tensor]
    compare: Callable[[Tensor, Tensor], float]
    square: bool = True

    def shuffled(self, prepared: Tensor, order: Tensor) -> Tensor:
        """What it would make of the same latents with the items in another order."""
        return prepared[order][:, order] if self.square else prepared[order]


def measures(k: int = 10, dim: int = 10) -> dict[str, Measure]:
    """The measures by which encoders are ranked, of rows `[n, d]` of unit norm."""
    return {
        "mutual_knn": Measure(lambda x: _member(neighbours(x, k)), _shared),
        "cka": Measure(kernel, _cka),
        "cka_rbf": Measure(lambda x: kernel(x, "median"), _cka),
        "cknna": Measure(kernel, lambda a, b: _cknna(a, b, k)),
        "svcca": Measure(lambda x: _left(x, dim), _correlation, square=False),
    }
