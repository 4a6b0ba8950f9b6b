"""Whether latents may be stored as float16: no overflow, and the order of neighbours kept."""

from __future__ import annotations

import numpy as np

SAMPLE = 256
SAMPLE_VALUES = 1 << 24
"""Numbers in the sample at most, 128 MB as float64: rows of a grid can have 200,000 each."""
NEIGHBOURS = 10
KEPT = 0.99
TIE = 0.01


def to_float16(latents: np.ndarray) -> tuple[np.ndarray, str]:
    """Finite float32 latents [n, ...] as float16, and what they lose by it.

    "range": a value overflows; "order": the order of near neighbours; "": nothing that matters.
    """
    with np.errstate(over="ignore"):
        rounded = latents.astype(np.float16)
    if not np.isfinite(rounded).all():
        return rounded, "range"
    size = min(SAMPLE, len(latents), max(SAMPLE_VALUES // latents[0].size, 2 * NEIGHBOURS))
    sample = np.linspace(0, len(latents) - 1, size).round().astype(np.int64)
    kept = neighbours_kept(latents[sample], rounded[sample])
    return rounded, "order" if kept < KEPT else ""


def neighbours_kept(exact: np.ndarray, rounded: np.ndarray) -> float:
    """Share of each row's 10 nearest by cosine among `rounded` rows that are near in `exact` too.

    A neighbour also counts as kept when it is less near than the true tenth by under a hundredth
    of the spread (standard deviation) of the row's cosines: such ties are decided by noise, and
    repeated items are nothing but ties. The spread makes the measure strict for latents in a
    narrow cone, whose cosines all differ little and whose order float16 can destroy.
    """
    n = len(exact)
    k = min(NEIGHBOURS, n - 1)
    if k < 1:
        return 1.0
    true, cast = _cosines(exact), _cosines(rounded)
    off_diagonal = true[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    tenth = np.partition(off_diagonal, n - 1 - k, axis=1)[:, n - 1 - k]
    tolerance = TIE * off_diagonal.std(axis=1) + 1e-12
    np.fill_diagonal(cast, -np.inf)
    chosen = np.argpartition(-cast, k - 1, axis=1)[:, :k]
    near = np.take_along_axis(true, chosen, axis=1) >= (tenth - tolerance)[:, None]
    return float(near.mean())


def _cosines(rows: np.ndarray) -> np.ndarray:
    """[n, n] in float64, so that only the stored rounding counts."""
    rows = rows.reshape(len(rows), -1).astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return rows @ rows.T
