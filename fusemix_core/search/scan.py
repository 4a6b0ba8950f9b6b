"""Exact nearest vectors by a scan of rounded ones: what a rounding can hide is read exactly.

For a query q and a vector g, rounded to p and h: |q·g - p·h| ≤ |q| |g - h| + |q - p| |h|. A vector
whose bound is below the score of the count-th best can't be among the best. Few are left.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np

from fusemix_core.search.segments import Segment, rounded

_BLOCK = 65_536
_SMALL_BLOCK = 2048
"""Rows that numpy turns into float32 at once: they stay in the processor's cache."""
_TOGETHER = 8
"""Queries that are compared at once."""
_ROUNDING = 1e-5
"""The largest error of a sum in float32, as a share of the product of the norms."""
_SAMPLE = 16

Read = Callable[[np.ndarray], np.ndarray]


def nearest(
    segments: Sequence[Segment],
    read: Read,
    queries: np.ndarray,
    count: int,
    allowed: np.ndarray | None,
    dim: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The best vectors of each query, exactly.

    Args:
        segments: what is searched; positions count through all of them.
        read: int64 positions → float32 vectors `[n, dim + K]`.
        queries: float32 `[m, dim + K]`.
        count: of the best, at most the number of those allowed.
        allowed: bool `[n]`; None: all.
        dim: numbers that are rounded in `segments`; the rest is exact.

    Returns:
        int64 positions `[m, count]`, and their inner products, float32.
    """
    places = np.zeros((len(queries), count), np.int64)
    scores = np.zeros((len(queries), count), np.float32)
    for start in range(0, len(queries), _TOGETHER):
        some = queries[start : start + _TOGETHER]
        close, slack = _scanned(segments, some, dim)
        if allowed is not None:
            close[:, ~allowed] = -np.inf
        for i, query in enumerate(some):
            found = _best(close[i], slack[i], query, count, read)
            places[start + i], scores[start + i] = found
    return places, scores


def _scanned(
    segments: Sequence[Segment], queries: np.ndarray, dim: int
) -> tuple[np.ndarray, np.ndarray]:
    """(products float32 `[m, n]` of rounded vectors, their largest errors)."""
    total = sum(map(len, segments))
    close = np.empty((len(queries), total), np.float32)
    slack = np.empty((len(queries), total), np.float32)
    product, norm, lost = _product(queries[:, :dim])
    start = 0
    for one in segments:
        part = slice(start, start + len(one))
        product(one.codes, close[:, part])
        close[:, part] *= one.scale
        np.multiply(one.error, norm[:, None], out=slack[:, part])
        if queries.shape[1] > dim:
            exact = queries[:, dim:] @ one.kept.T
            close[:, part] += exact
            slack[:, part] += np.abs(exact) * _ROUNDING
        slack[:, part] += one.norm * lost[:, None]
        start += len(one)
    return close, slack


def _product(
    queries: np.ndarray,
) -> tuple[Callable[[np.ndarray, np.ndarray], None], np.ndarray, np.ndarray]:
    """(writes the products of codes `[n, d]` with the queries into `[m, n]`; for each query the
    factors of a vector's `error` and `norm` in the largest error of a product)."""
    length = np.linalg.norm(queries, axis=1).astype(np.float32) * (1 + _ROUNDING)
    torch = sys.modules.get("torch")
    if torch is None or not _multiplies_bytes(torch):
        return _by_numpy(queries), length, length * _ROUNDING
    codes, scale = rounded(queries)
    lost = np.linalg.norm(queries - codes * scale[:, None], axis=1)
    right = torch.from_numpy(np.ascontiguousarray(codes.T))

    def product(rows: np.ndarray, out: np.ndarray) -> None:
        for start in range(0, len(rows), _BLOCK):
            part = rows[start : start + _BLOCK]
            with _unwarned():
                left = torch.from_numpy(part)
            whole = torch._int_mm(left, right).numpy()  # int32 [n, m]
            np.multiply(whole.T, scale[:, None], out=out[:, start : start + len(part)])

    return product, length, lost.astype(np.float32) + length * _ROUNDING


def _by_numpy(queries: np.ndarray) -> Callable[[np.ndarray, np.ndarray], None]:
    """Products in float32: a process that has not imported torch is not made to."""
    queries = np.ascontiguousarray(queries, np.float32)

    def product(rows: np.ndarray, out: np.ndarray) -> None:
        buffer = np.empty((min(len(rows), _SMALL_BLOCK), rows.shape[1]), np.float32)
        for start in range(0, len(rows), _SMALL_BLOCK):
            part = rows[start : start + _SMALL_BLOCK]
            np.copyto(buffer[: len(part)], part)
            out[:, start : start + len(part)] = (buffer[: len(part)] @ queries.T).T

    return product


def _best(
    close: np.ndarray, slack: np.ndarray, query: np.ndarray, count: int, read: Read
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and products of the `count` best, of equal ones the first."""
    likely = _largest(close, count)
    least = (read(likely) @ query).min()
    maybe = np.flatnonzero(close + slack >= least)
    scores = read(maybe) @ query
    best = np.lexsort((maybe, -scores))[:count]
    return maybe[best], scores[best]


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """int64: where the `count` largest values are, in no order."""
    sample = values[::_SAMPLE]
    if len(sample) > count:
        least = np.partition(sample, len(sample) - count)[len(sample) - count]
        some = np.flatnonzero(values >= least)
    else:
        some = np.arange(len(values))
    if len(some) <= count:
        return some
    return some[np.argpartition(values[some], len(some) - count)[len(some) - count :]]


def _multiplies_bytes(torch) -> bool:
    """Whether torch has fast products of bytes here."""
    on = torch.backends.mkldnn.is_available() and hasattr(torch, "_int_mm")
    return on and torch.backends.cpu.get_cpu_capability().startswith("AVX")


def _unwarned():
    """Without torch's warning that the memory can't be written: nothing writes to it."""
    import warnings

    catch = warnings.catch_warnings()
    warnings.simplefilter("ignore")
    return catch
