"""Measures of survival: Harrell's c, and the Brier score of survival curves.

`time` is float `[n]`, of the event or of the last time a row was seen; `event` is bool `[n]`,
whether the event came. A curve is a `Steps` function of time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Steps:
    """A function of time that steps: `values[i]` from `times[i]` on, `start` before the first.

    Attributes:
        times: float64 `[k]`, ascending.
        values: float64 `[k]`.
    """

    times: np.ndarray
    values: np.ndarray
    start: float = 1.0

    def __call__(self, at: np.ndarray) -> np.ndarray:
        """The values at these times."""
        place = np.searchsorted(self.times, at, side="right")
        return np.r_[self.start, self.values][place]

    def thinned(self, most: int) -> Steps:
        """At most so many of its steps, evenly among them, the first and the last kept."""
        if len(self.times) <= most:
            return self
        kept = np.unique(np.linspace(0, len(self.times) - 1, most).round().astype(np.int64))
        return Steps(self.times[kept], self.values[kept], self.start)


def at_risk(time: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(distinct times with events, events at each, rows whose time is that or later)."""
    times, counts = np.unique(time[event], return_counts=True)
    ascending = np.sort(time)
    return times, counts, len(time) - np.searchsorted(ascending, times, side="left")


def nelson_aalen(time: np.ndarray, event: np.ndarray) -> Steps:
    """The cumulative hazard of all rows."""
    times, counts, risk = at_risk(time, event)
    return Steps(times, np.cumsum(counts / risk), 0.0)


def kaplan_meier(time: np.ndarray, event: np.ndarray) -> Steps:
    """The share of all rows without an event."""
    times, counts, risk = at_risk(time, event)
    return Steps(times, np.cumprod(1 - counts / risk))


def censoring(time: np.ndarray, event: np.ndarray) -> Steps:
    """The share of all rows that aren't censored yet: Kaplan-Meier of being censored.

    Events at a time come before what is censored at it: they are not at risk of being censored
    then.
    """
    times, counts, risk = at_risk(time, ~event)
    died = np.sort(time[event])
    here = np.searchsorted(died, times, side="right") - np.searchsorted(died, times, side="left")
    return Steps(times, np.cumprod(1 - counts / (risk - here)))


def breslow(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> Steps:
    """Breslow's cumulative baseline hazard, for log risks `[n]`: that of a row whose is 0."""
    times, counts, _ = at_risk(time, event)
    order = np.argsort(time)
    later = np.cumsum(np.exp(risk[order])[::-1])[::-1]
    first = np.searchsorted(time[order], times, side="left")
    return Steps(times, np.cumsum(counts / later[first]), 0.0)


def concordance(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> float:
    """Harrell's c: how often the row whose event comes first has the higher risk.

    Pairs can be compared if the earlier time is that of an event. At equal times an event is
    earlier than a censored row, and two events aren't compared. Equal risks count one half.
    O(n log n) in time.

    Args:
        risk: float `[n]`, larger for an earlier event.

    Returns:
        NaN if no pair can be compared.
    """
    order = np.lexsort((~event, time))
    time, ranks = time[order], np.unique(risk, return_inverse=True)[1][order]
    times, counts, later = at_risk(time, event[order])
    place = np.searchsorted(times, time[event[order]])
    start = (len(time) - later + counts)[place]  # the first row that comes after the event
    pairs = int((len(time) - start).sum())
    if pairs == 0:
        return float("nan")
    own = ranks[event[order]]
    lower, upto = (_lower_ranks(ranks, start, own + more).sum() for more in (0, 1))
    return float((lower + upto) / 2 / pairs)


def _lower_ranks(ranks: np.ndarray, start: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """int64 `[q]`: how many of `ranks[start:]` are below `limit`, for q starts and limits.

    A wavelet matrix: bit by bit from the highest, rows are parted into those that have it and those
    that don't, and each query's range goes along.
    """
    low, high = start.copy(), np.full(len(start), len(ranks))
    found = np.zeros(len(start), np.int64)
    highest = max(int(limit.max(initial=0)), int(ranks.max(initial=0)))
    for bit in reversed(range(highest.bit_length())):
        ones = (ranks >> bit) & 1
        zeros_before = np.r_[0, np.cumsum(1 - ones)]
        zero_low, zero_high = zeros_before[low], zeros_before[high]
        up = ((limit >> bit) & 1).astype(bool)
        found += np.where(up, zero_high - zero_low, 0)
        first_one = zeros_before[-1]
        low = np.where(up, first_one + low - zero_low, zero_low)
        high = np.where(up, first_one + high - zero_high, zero_high)
        ranks = np.concatenate([ranks[ones == 0], ranks[ones == 1]])
    return found


def brier(
    time: np.ndarray, event: np.ndarray, survival: np.ndarray, at: np.ndarray, censored: Steps
) -> np.ndarray:
    """The Brier score at each time, of censored data by inverse probability weights.

    Graf et al. (1999), https://doi.org/10.1002/(SICI)1097-0258(19990915/30)18:17/18<2529::AID-SIM274>3.0.CO;2-5

    Args:
        survival: `[n, B]`, the predicted probability of no event until each time.
        at: `[B]`, the times.
        censored: the share that isn't censored yet, of the training rows: `censoring`.

    Returns:
        float64 `[B]`.
    """
    with np.errstate(divide="ignore"):
        own, then = (np.where(g > 0, 1 / g, 0.0) for g in (censored(time), censored(at)))
    died = (time[:, None] <= at) & event[:, None]
    alive = time[:, None] > at
    lost = survival**2 * died * own[:, None] + (1 - survival) ** 2 * alive * then
    return lost.mean(axis=0)


def integrated(values: np.ndarray, at: np.ndarray) -> float:
    """The mean over time of a score at ascending times, by the trapezoid rule. NaN of fewer than
    two times."""
    if len(at) < 2:
        return float("nan")
    return float(np.trapezoid(values, at) / (at[-1] - at[0]))
