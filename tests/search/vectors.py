"""Vectors that tests of the index share."""

import numpy as np


def keys_of(numbers) -> np.ndarray:
    """uint64 [n, 2]: different keys of different numbers, with bytes of 0 among them."""
    numbers = np.asarray(numbers, np.uint64)
    return np.stack([numbers << np.uint64(40), numbers % np.uint64(7)], axis=1)


def rows_of(count: int, dim: int = 24, kept: int = 2, seed: int = 0) -> np.ndarray:
    """float32 [n, dim + kept]: unit vectors, some of them nearly the same, and further columns."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((max(1, count // 20), dim))
    rows = centres[draw.integers(0, len(centres), count)] + 0.05 * draw.standard_normal(
        (count, dim)
    )
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.concatenate([rows, draw.uniform(-0.3, 0, (count, kept))], axis=1).astype(np.float32)


def queries_of(count: int, dim: int = 24, kept: int = 2, seed: int = 9) -> np.ndarray:
    """float32 [n, dim + kept]: unit vectors that ask by one of the further columns each."""
    rows = rows_of(count, dim, kept, seed)
    rows[:, dim:] = 0
    if kept:
        rows[np.arange(count), dim + np.arange(count) % kept] = 1
    return rows


def naive(rows, queries, count, allowed=None) -> list[list[int]]:
    """The best rows of each query, one product at a time, in float64."""
    found = []
    for query in queries.astype(np.float64):
        scores = [(-float(row @ query), i) for i, row in enumerate(rows.astype(np.float64))
                  if allowed is None or allowed[i]]  # fmt: skip
        found.append([i for _, i in sorted(scores)[:count]])
    return found
