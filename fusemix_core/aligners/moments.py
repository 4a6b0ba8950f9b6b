"""First and second moments of several modalities, in one pass over the pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from fusemix_core.aligners.crosses import Matrices, Rows
from fusemix_core.aligners.share import Share
from fusemix_core.allocator import keep_freed_memory
from fusemix_core.batch import sent
from fusemix_core.engine.feed import sweep
from fusemix_core.gathering import rank, sum_up
from fusemix_core.interfaces import FitContext, PairedLatents

Feature = Callable[[Any], Tensor]
"""Latents in the form in which batches have those of a modality → float `[n, d_k]`."""

_CHUNK_BYTES, _LEAST_ROWS, _MOST_ROWS = 1 << 28, 1_024, 8_192
"""What the rows of an update take in float32, and how few or many these are. Each update adds its
products to float64 totals, which costs a kernel's wide features as much as 300 rows."""

_PANEL = 512
"""Columns of a product with itself that are taken at a time, its upper triangle only."""


class Moments:
    """float64 moments of K modalities, of which a row may lack some.

    Products of float32 rows are taken in float32 over the rows of one `update`, and added up in
    float64: several times faster, and exact to 1e-6 of the variances, as all are taken about the
    mean of the first rows.

    The covariance of two modalities is taken over the rows that have both, about the means of
    those rows; that of one with itself over all rows that have it.

    Args:
        dims: the widths.
        device: of the rows.
        keep: how many rows there will be, to hold these in float32 instead of the products
            between modalities; 0 for the products.
    """

    def __init__(
        self, dims: Sequence[int], device: torch.device | str = "cpu", keep: int = 0
    ) -> None:
        self.dims = tuple(dims)
        self._kept = [torch.zeros(keep, dim, device=device) for dim in dims] if keep else []
        self._seen = 0
        self._count = torch.zeros(len(dims), len(dims), dtype=torch.int64)
        pairs = [(k, m) for k in range(len(dims)) for m in range(len(dims))]
        self._origin: list[Tensor] = []
        zeros = {"dtype": torch.float64, "device": device}
        self._first = {(k, m): torch.zeros(dims[k], **zeros) for k, m in pairs}
        taken = [(k, m) for k, m in pairs if k == m or (k < m and not keep)]
        self._second = {(k, m): torch.zeros(dims[k], dims[m], **zeros) for k, m in taken}

    def update(self, rows: Sequence[Tensor], present: Tensor) -> None:
        """Add n rows: `[n, d_k]` of each modality, present bool `[n, K]` says which count. It is on
        the CPU, whatever the device of the rows, so that nothing waits for that."""
        complete = bool(present.all())
        if not self._origin:
            self._origin = origin_of(rows, present)
        rows = [self._about(k, row, present[:, k]) for k, row in enumerate(rows)]
        self._seen += len(present)
        sums = [row.sum(0) for row in rows] if complete else []
        for k, m in self._first:
            both = _where(present[:, k] & present[:, m], rows[k].device)
            x = rows[k][both]
            self._count[k, m] += len(x)
            self._first[k, m] += sums[k] if complete else x.sum(0)
            if m == k:
                _add_square(self._second[k, k], x)
            elif (k, m) in self._second:
                self._second[k, m].add_(x.T @ rows[m][both])

    def begin(self, origin: Sequence[Tensor], seen: int = 0) -> None:
        """Take the moments about `origin`, `[d_k]` of each modality; the rows that come are kept
        from number `seen` on. By default both are those of the first update."""
        self._origin, self._seen = list(origin), seen

    def add_up(self, share: Share) -> None:
        """Make the moments of each process's share those of all rows. Collective: every process
        calls it, and each had begun about the same origin."""
        sum_up([self._count, *self._first.values(), *self._second.values()])
        for kept in self._kept:
            share.exchange(kept)

    def _about(self, k: int, rows: Tensor, present: Tensor) -> Tensor:
        """The rows about the origin; if rows are kept, among these, and zero if they lack."""
        if not self._kept:
            return rows - self._origin[k]
        kept = self._kept[k][self._seen : self._seen + len(rows)]
        torch.sub(rows, self._origin[k], out=kept)
        if not present.all():
            kept[_where(~present, kept.device)] = 0
        return kept

    def standardise(self, centres: Sequence[Tensor], scales: Sequence[Tensor]) -> None:
        """Make the moments those of (row - centre) / scale, `[d_k]` and a number of each
        modality, in place of the rows'."""
        for k, (centre, scale) in enumerate(zip(centres, scales, strict=True)):
            self._origin[k] = (self._origin[k] - centre) / scale
        for (k, _), first in self._first.items():
            first.div_(scales[k])
        for (k, m), second in self._second.items():
            second.div_(scales[k] * scales[m])

    def first(self, count: int) -> Moments:
        """The moments of the first `count` features of each modality, or of all it has; what is
        held of them already shares memory with these."""
        some = Moments.__new__(Moments)
        some.dims = tuple(min(dim, count) for dim in self.dims)
        some._count = self._count
        some._origin = [origin[:count] for origin in self._origin]
        some._first = {pair: first[:count] for pair, first in self._first.items()}
        some._second = {pair: second[:count, :count] for pair, second in self._second.items()}
        parts = [kept[:, :count] for kept in self._kept]
        for k, m in combinations(range(len(parts)), 2):
            some._second[k, m] = (parts[k].T @ parts[m]).double()
        some._kept = []
        return some

    def met(self, k: int, m: int) -> int:
        """How many rows have both."""
        return int(self._count[k, m])

    def mean(self, k: int) -> Tensor:
        """`[d_k]`, over all rows that have modality k."""
        return self._origin[k].double() + self._first[k, k] / self._count[k, k].clamp(min=1)

    def variance(self, k: int) -> float:
        """The trace of the covariance of modality k with itself."""
        n = self._count[k, k].clamp(min=1)
        squares = (self._first[k, k] / n).square()
        return (self._second[k, k].diagonal() / n - squares).sum().item()

    def covariance(self, k: int, m: int) -> Tensor:
        """`[d_k, d_m]`; zero where no row has both."""
        if k > m:
            return self.covariance(m, k).T
        n = self._count[k, m].clamp(min=1)
        if k == m:
            second = self._second[k, k].triu(1)
            second += self._second[k, k].triu().T
        elif self._kept:
            second = (self._kept[k].T @ self._kept[m]).double()
        else:
            second = self._second[k, m].clone()
        return second.div_(n).addr_(self._first[k, m] / n, self._first[m, k] / n, alpha=-1)

    def crosses(self, dtype: torch.dtype) -> Matrices | Rows:
        """The covariances between modalities that meet, or the float32 rows instead of them."""
        if self._kept:
            n = self._count.clamp(min=1).tolist()
            means = {(k, m): (own / n[k][m]).to(dtype) for (k, m), own in self._first.items()}
            return Rows(self._kept, self._count, means)
        pairs = combinations(range(len(self.dims)), 2)
        met = [(k, m) for k, m in pairs if self._count[k, m]]
        return Matrices({(k, m): self.covariance(k, m).to(dtype) for k, m in met})


@torch.no_grad()
def moments_of(
    pairs: PairedLatents,
    context: FitContext,
    features: Sequence[Feature] | None = None,
    dims: Sequence[int] | None = None,
    keep: bool = False,
) -> Moments:
    """The moments of every row, in one pass over the pairs in about the order they have on disk.

    Of several processes each takes a share of the rows, cut where one process would cut them, and
    all end with the moments of all rows: every process calls this. In memory are two or three
    chunks of a few thousand rows, however many pairs there are, or with `keep` all features (see
    `Moments`). Progress goes to `context.callbacks`. `KeyboardInterrupt` is raised at once.

    Args:
        pairs: the rows.
        context: where it runs, and who hears of it.
        features: of each modality what makes `[n, dims[k]]` of latents `[n, d_k]`; by default
            latents are taken as they are.
        dims: the widths of the features.
        keep: see `Moments`.
    """
    if context.device.type == "cpu":
        keep_freed_memory()
    dims = list(dims or pairs.dims.values())
    widest = max(sum(dims), sum(pairs.dims.values()))
    size = min(max(_CHUNK_BYTES // (4 * widest), _LEAST_ROWS), _MOST_ROWS)
    features = features or [_as_they_are] * len(dims)
    moments = Moments(dims, context.device, len(pairs) if keep else 0)
    share, done = Share.of(pairs, size), 0
    if rank() != share.first:
        moments.begin(share.from_first(_like(pairs, features, context)), share.start)
    _tell(context, 0, len(pairs))
    with closing(sweep(share.pairs, size, context.device)) as batches:
        for batch in batches:
            latents, present = batch.latents.values(), batch.present_here()
            rows = [feature(x) for feature, x in zip(features, latents, strict=True)]
            if not done and rank() == share.first:
                moments.begin(share.from_first(origin_of(rows, present)))
            moments.update(rows, present)
            done += len(batch.links)
            _tell(context, share.so_far(done), len(pairs))
    moments.add_up(share)
    return moments


def _like(pairs: PairedLatents, features: Sequence[Feature], context: FitContext) -> list[Tensor]:
    """Tensors like one row of the features, `[d_k]` each."""
    latents = pairs.batch(torch.zeros(1, dtype=torch.int64), context.device).latents.values()
    return [feature(x)[0] for feature, x in zip(features, latents, strict=True)]


def _as_they_are(latents: Tensor) -> Tensor:
    return latents


def _tell(context: FitContext, done: int, total: int) -> None:
    for callback in context.callbacks:
        callback.on_pairs(done, total)


def _add_square(total: Tensor, rows: Tensor) -> None:
    """Add to the upper triangle of `total` that of rowsᵀ rows."""
    for start in range(0, rows.shape[1], _PANEL):
        panel = slice(start, start + _PANEL)
        total[: panel.stop, panel].add_(rows[:, : panel.stop].T @ rows[:, panel])


def origin_of(rows: Sequence[Tensor], present: Tensor) -> list[Tensor]:
    """The mean `[d_k]` of each modality over the rows that have it, zero if none has; `present` as
    in `Moments.update`."""
    own = [row[_where(present[:, k], row.device)] for k, row in enumerate(rows)]
    return [row.mean(0) if len(row) else row.sum(0) for row in own]


def _where(mask: Tensor, device: torch.device) -> Tensor | slice:
    """The places that a mask on the CPU has, as an index on a device."""
    return slice(None) if mask.all() else sent(mask.nonzero()[:, 0], device)
