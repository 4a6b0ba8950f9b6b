"""Greedy inference of a determinantal point process, lazily.

With the items S taken, the residual variance of item j is r_j = K_jj - K_jS K_SS⁻¹ K_Sj: what they
leave unexplained of it. Greedy inference takes the item with the largest one, again and again (Chen
et al., arXiv 1709.05135). Residuals only fall, so that one computed when fewer items were taken is
a bound, and an item can wait for as long as others have more than its bound (Minoux, 1978).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from fusemix_core.batch import sent
from fusemix_core.errors import ConfigError

HOT = 512
"""Items whose residuals are followed from one item taken to the next."""
READ, BATCH, STEP = 8192, 1024, 512
"""Items that are read at once, those whose bounds are refreshed at once, and by how many of the
items taken."""
SINGLE = 1e-5
"""How wrong a bound in float32 may be, of the largest variance; far more than it is."""


class Kernel(Protocol):
    """A positive semi-definite kernel of n items, computed if it is asked for."""

    def diagonal(self) -> Tensor:
        """float64 CPU `[n]`."""
        ...

    def take(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """`[m, …]`: what `between` needs of the items of the int64 CPU tensor `index`, on the
        device that computes."""
        ...

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        """`[len(x), len(y)]`: the kernel between items taken."""
        ...


def lazy_greedy(
    kernel: Kernel,
    k: int,
    tolerance: float,
    *,
    hot: int = HOT,
    dtype: torch.dtype = torch.float32,
    told: Callable[[int], None] = lambda taken: None,
) -> Tensor:
    """Up to k items, int64, in the order taken: those that computing every residual at every step
    gives.

    Residuals that differ by `tolerance` or less are equal, and of equal ones the first item is
    taken. An item with less than `tolerance` is not taken, so that a kernel of lower rank than k
    gives fewer.

    In rounds: bounds are refreshed, the largest first, until the `hot` largest are up to date; of
    these the residuals are computed in float64 and followed, and items taken, for as long as the
    best of them is above the bounds of all others. Bounds are in `dtype`, and in float64 from where
    float32 can't tell them apart. Time is O(n k²) at worst, memory 12 k² bytes (16 k² in float64)
    beside O(n). `told` is called with how many are taken.
    """
    taken = _Taken(kernel, k)
    held, bounds = _Hot(taken), _Bounds(taken, dtype, tolerance)
    while len(taken.index) < k:
        count = len(taken.index)
        bounds.invert()
        index, above = bounds.largest(hot, held)
        top = float(bounds.bound.max())
        clear = top > above + 2 * bounds.error
        if bounds.is_single and count and not (clear and top > 100 * bounds.error):
            bounds = _Bounds(taken, torch.float64, tolerance)
            continue
        if top < tolerance:
            break
        held.hold(index if clear else bounds.first(tolerance))
        if bounds.is_single and bounds.differ(held) > bounds.error / 4:
            bounds = _Bounds(taken, torch.float64, tolerance)
            continue
        if clear:
            held.take(k, above + bounds.error, tolerance)
        else:
            held.take(count + 1, -math.inf, tolerance)
        bounds.note(held)
        told(len(taken.index))
    return torch.tensor(taken.index, dtype=torch.int64)


class _Taken:
    """The items taken: `index`, `x` `[k, …]`, and `factor` `[k, k]`, the Cholesky factor of the
    kernel between them, in float64; rows beyond the items taken are zero."""

    def __init__(self, kernel: Kernel, k: int) -> None:
        self.kernel, self.k = kernel, k
        self.variance = kernel.diagonal()
        self.index: list[int] = []
        like = kernel.take(torch.arange(min(len(self.variance), 1)), torch.float64)
        self.x = like.new_zeros(k, *like.shape[1:])
        self.factor = zeros(like, k, torch.float64)

    def rows(self, x: Tensor) -> Tensor:
        """`[m, t]`: the rows of the factor that other items would have."""
        t, factor = len(self.index), self.factor
        rows = self.kernel.between(x, self.x[:t])
        for a in range(0, t, STEP):  # by parts: torch copies the triangle that it solves
            b = min(a + STEP, t)
            rows[:, a:b] -= rows[:, :a] @ factor[a:b, :a].T
            rows[:, a:b] = solve_triangular(factor[a:b, a:b], rows[:, a:b].T, upper=False).T
        return rows


def zeros(like: Tensor, k: int, dtype: torch.dtype) -> Tensor:
    """`[k, k]` zeros, or a `ConfigError` if there is no memory for them."""
    try:
        return like.new_zeros(k, k, dtype=dtype)
    except RuntimeError as error:
        raise ConfigError(
            f"There is no memory to choose {k:,} items: it takes {16 * k * k / 2**30:,.0f} GB.",
            "Choose fewer, or by another selector.",
        ) from error


class _Hot:
    """Items whose residuals are exact: `index`, sorted; `residual`; `rows` `[m, k]` of the factor,
    all float64."""

    def __init__(self, taken: _Taken) -> None:
        self.taken = taken
        self.index = torch.empty(0, dtype=torch.int64)
        self.rows = taken.factor.new_zeros(0, taken.k)
        self.residual = self.rows.new_zeros(0)

    def hold(self, index: Tensor) -> None:
        """Hold other items, sorted; what is known of them stays known."""
        taken, t = self.taken, len(self.taken.index)
        place = {j: i for i, j in enumerate(self.index.tolist())}
        known = torch.tensor([place.get(j, -1) for j in index.tolist()])
        self.x = taken.kernel.take(index, torch.float64)
        rows = self.rows.new_zeros(len(index), taken.k)
        split = (known >= 0).nonzero()[:, 0], known[known >= 0], (known < 0).nonzero()[:, 0]
        old, before, new = (sent(one, rows.device) for one in split)
        rows[old, :t] = self.rows[before, :t]
        rows[new, :t] = taken.rows(self.x[new])
        self.index, self.rows = index, rows
        self.residual = sent(taken.variance[index], rows.device) - rows[:, :t].square().sum(1)

    def take(self, most: int, above: float, tolerance: float) -> None:
        """Take items until there are `most`, or none has a residual over `above`."""
        taken, last = self.taken, len(self.index) - 1
        place = torch.arange(last + 1, device=self.residual.device)
        for t in range(len(taken.index), most):
            largest = self.residual.max()
            alike = self.residual >= largest - tolerance
            first = torch.where(alike, place, last).min()
            found = largest, self.residual[first[None]][0], first.to(self.residual)
            best, own, i = torch.stack(found).tolist()  # the one time an item waits for the device
            if best <= above or best < tolerance:
                break
            i, scale = int(i), math.sqrt(own)
            taken.index.append(int(self.index[i]))
            taken.x[t], taken.factor[t, :t], taken.factor[t, t] = self.x[i], self.rows[i, :t], scale
            column = taken.kernel.between(self.x, self.x[i : i + 1])[:, 0]
            self.rows[:, t] = (column - self.rows[:, :t] @ self.rows[i, :t]) / scale
            self.residual -= self.rows[:, t].square()
            self.residual[i] = -math.inf


class _Bounds:
    """Bounds of all residuals: `bound` float64 `[n]` is item j's with the first `stage[j]` items
    taken, right up to `error`; -inf of an item that is taken.

    `inverse` is that of the factor: its row i, times the kernel between j and the items taken, is
    j's entry in column i. So a bound is refreshed by the rows that are new to it, and nothing is
    kept of an item but its bound.
    """

    def __init__(self, taken: _Taken, dtype: torch.dtype, tolerance: float) -> None:
        self.taken = taken
        self.is_single = dtype == torch.float32
        self.error = 2 * tolerance
        if self.is_single:
            self.error += SINGLE * float(taken.variance.abs().max())
        self.bound = taken.variance.clone()
        self.bound[taken.index] = -math.inf
        self.stage = torch.zeros(len(self.bound), dtype=torch.int32)
        self.inverse = zeros(taken.factor, taken.k, dtype)
        self.inverted = 0

    def invert(self) -> None:
        """Bring `inverse` up to the items taken."""
        a, b, factor = self.inverted, len(self.taken.index), self.taken.factor
        own = torch.eye(b - a, dtype=factor.dtype, device=factor.device)
        own = solve_triangular(factor[a:b, a:b], own, upper=False)
        self.inverse[a:b, a:b] = own
        self.inverse[a:b, :a] = -(own @ factor[a:b, :a]).to(self.inverse) @ self.inverse[:a, :a]
        self.inverted = b

    def largest(self, count: int, held: _Hot) -> tuple[Tensor, float]:
        """The `count` items with the largest residuals, sorted, their bounds up to date; and what
        no other item's bound is above."""
        floor = -math.inf
        if len(known := held.residual):
            least = float(torch.where(known > -math.inf, known, math.inf).min())
            floor = least if least < math.inf else -math.inf
        size = count
        while True:
            bound, index = self.bound.topk(min(size + 1, len(self.bound)))
            if not len(self.stale(index[:count])):
                rest = float(bound[count]) if len(bound) > count else -math.inf
                return index[:count][bound[:count] > -math.inf].sort().values, rest
            self.refresh(self.stale(index[:size]), floor)
            size *= 2

    def first(self, tolerance: float) -> Tensor:
        """int64 `[1]`: the first of the items that have the largest residual."""
        while True:
            tied = (self.bound >= self.bound.max() - tolerance).nonzero()[:, 0]
            if not len(stale := self.stale(tied)):
                return tied[:1]
            self.refresh(stale, -math.inf)

    def stale(self, index: Tensor) -> Tensor:
        """Those items whose bounds are not up to date."""
        return index[self.stage[index] < self.inverted]

    def refresh(self, index: Tensor, floor: float) -> None:
        """Bring bounds of items up to date, or so far that they are below `floor`."""
        ordered = index[self.stage[index].argsort()]
        for part in ordered.split(READ):
            x = self.taken.kernel.take(part, self.inverse.dtype)
            for own, rows in zip(part.split(BATCH), x.split(BATCH), strict=True):
                self._refresh(own, rows, floor)

    def _refresh(self, index: Tensor, x: Tensor, floor: float) -> None:
        """`refresh` of a few items, sorted by stage, `x` of the kernel."""
        taken, t = self.taken, self.inverted
        stage, bound = self.stage[index].to(x.device), self.bound[index].to(x.device)
        between = self.inverse.new_empty(len(index), t)  # the kernel with the items taken
        filled = 0
        for start in range(int(stage[0]), t, STEP):
            end = min(start + STEP, t)
            between[:, filled:end] = taken.kernel.between(x, taken.x[filled:end].to(x))
            filled = end
            rows = between[:, :end] @ self.inverse[start:end, :end].T
            if int(stage.max()) > start:
                rows *= torch.arange(start, end, device=x.device) >= stage[:, None]
            bound -= rows.square_().sum(1, dtype=bound.dtype)
            stage.clamp_(min=end)
            self.bound[index], self.stage[index] = bound.cpu(), stage.cpu()
            on = bound >= floor
            if not on.all():
                x, between, bound, stage = x[on], between[on], bound[on], stage[on]
                index = index[on.cpu()]
            if not len(index):
                break

    def differ(self, held: _Hot) -> float:
        """How wrong the bounds of items are of which the residuals are exact."""
        return float((self.bound[held.index] - held.residual.cpu()).abs().max())

    def note(self, held: _Hot) -> None:
        """Take over the residuals of `held`."""
        self.bound[held.index] = held.residual.cpu()
        self.stage[held.index] = len(self.taken.index)
