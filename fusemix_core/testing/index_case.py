"""Vectors and indexes for `check_index`, and what an index has to answer with them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from fusemix_core.testing.components import ComponentCase
from fusemix_core.testing.suite import expect

ROWS, DIM, KEPT = 300, 24, 2
BEST = 10
ENOUGH = 0.9
"""The share of the ten best that an index has to find, as it may be approximate."""


def keys_of(numbers: Any) -> np.ndarray:
    """uint64 `[n, 2]`: different keys of different numbers, with bytes of 0 among them."""
    numbers = np.asarray(numbers, np.uint64)
    return np.stack([numbers << np.uint64(40), numbers % np.uint64(7)], axis=1)


def numbers_of(keys: np.ndarray) -> np.ndarray:
    """int64: the numbers that keys were made from."""
    return (keys[..., 0] >> np.uint64(40)).astype(np.int64)


def rows_of(count: int, number: int = 0) -> np.ndarray:
    """float32 `[n, DIM + KEPT]`: unit vectors in groups, and further columns."""
    draw = np.random.default_rng(number)
    middles = draw.standard_normal((max(1, count // 20), DIM))
    rows = middles[draw.integers(0, len(middles), count)] + 0.3 * draw.standard_normal((count, DIM))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.concatenate([rows, draw.uniform(-0.1, 0, (count, KEPT))], axis=1).astype(np.float32)


def queries_of(count: int) -> np.ndarray:
    """float32 `[n, DIM + KEPT]`: vectors near to rows, that ask by one further column each."""
    rows = rows_of(ROWS)[:: ROWS // count][:count]
    rows[:, :DIM] += 0.03 * np.random.default_rng(9).standard_normal((count, DIM))
    rows[:, DIM:] = np.eye(KEPT)[np.arange(count) % KEPT]
    return rows


ALL = rows_of(ROWS)
QUERIES = queries_of(12)


def best(there: np.ndarray, count: int = BEST) -> np.ndarray:
    """int64 `[m, k]`: numbers of the best rows of each query; there: bool `[ROWS]`."""
    products = np.where(there, QUERIES @ ALL.T, -np.inf)
    return np.argsort(-products, axis=1, kind="stable")[:, : min(count, int(there.sum()))]


def share(found: np.ndarray, wanted: np.ndarray) -> float:
    """The share of the wanted numbers that are found, each row by itself."""
    return float(np.mean([np.isin(w, f).mean() for w, f in zip(wanted, found, strict=True)]))


def everything(but: Any = ()) -> np.ndarray:
    """bool `[ROWS]`: all rows, without some."""
    there = np.ones(ROWS, bool)
    there[np.asarray(but, np.int64)] = False
    return there


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that does not exist yet."""
    with tempfile.TemporaryDirectory(prefix="fusemix-") as path:
        yield Path(path) / "vectors"


def filled(case: ComponentCase, place: Path, count: int = ROWS) -> Any:
    """An index with the first rows, added in two parts."""
    index = case.make(place, DIM, KEPT)
    half = count // 2
    index.add(keys_of(range(half)), ALL[:half])
    index.add(keys_of(range(half, count)), ALL[half:count])
    index.settle()
    return index


def expect_answers(index: Any, there: np.ndarray, when: str) -> None:
    """Fail unless an index has these rows, and finds the best of them with their exact products."""
    found = set(numbers_of(index.keys).tolist())
    wanted = set(np.flatnonzero(there).tolist())
    expect(found == wanted, f"{when}: it has {len(found)} vectors, not those {len(wanted)}")
    keys, products = index.search(QUERIES, BEST)
    numbers = numbers_of(keys)
    expect(np.isin(numbers, np.flatnonzero(there)).all(), f"{when}: it finds what isn't there")
    part = share(numbers, best(there))
    expect(part >= ENOUGH, f"{when}: it finds {part:.0%} of the ten best")
    exact = np.einsum("md,mkd->mk", QUERIES, ALL[numbers])
    off = float(np.abs(exact - products).max(initial=0))
    expect(off < 1e-4, f"{when}: products are wrong by up to {off:.2g}")


class Stop(BaseException):
    """Stops a writer: no handler of errors catches it."""


def stopped_at(work: Callable[[], None], call: str, last: int) -> bool:
    """Do some work, which is stopped at the last-th call of a function of the os module; whether it
    ended before."""
    real, calls = getattr(os, call), 0

    def counted(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == last:
            raise Stop
        return real(*args, **more)

    try:
        with patch.object(os, call, counted):
            work()
    except Stop:
        return False
    return True
