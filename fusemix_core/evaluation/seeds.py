"""Means over repeated runs, and how sure they are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

STUDENT_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
"""The 97.5% point of Student's distribution at 1, 2, … degrees of freedom."""


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and the half-width of its 95% Student interval, None for one value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    return mean, student_95(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def student_95(freedom: int) -> float:
    """Student's 97.5% point; beyond the table by Fisher's expansion, which is right to 0.001."""
    if freedom <= len(STUDENT_95):
        return STUDENT_95[freedom - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / (4 * freedom)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return z + first + second
