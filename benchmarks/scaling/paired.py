"""Differences of two methods at one place, with paired 95% intervals."""

from __future__ import annotations

from dataclasses import dataclass

from fusemix_core.benchmark import hits
from fusemix_core.benchmark.summary import Entry
from fusemix_core.evaluation.seeds import mean_interval


@dataclass(frozen=True)
class Difference:
    """The mean over seeds, in points of R@1, and its 95% interval, None where none is known."""

    mean: float
    interval: tuple[float, float] | None

    @property
    def below(self) -> bool:
        """Below 0 beyond the interval."""
        return self.interval is not None and self.interval[1] < 0

    @property
    def above(self) -> bool:
        """Above 0 beyond the interval."""
        return self.interval is not None and self.interval[0] > 0

    def __str__(self) -> str:
        """`+3.1 [1.0, 5.2]`."""
        text = f"{self.mean:+.1f}".replace("-", "−")
        if self.interval is None:
            return text
        low, high = (f"{v:.1f}".replace("-", "−") for v in self.interval)
        return f"{text} [{low}, {high}]"


def difference(ours: Entry, theirs: Entry, scorer: str) -> Difference | None:
    """Ours minus theirs over the seeds both have; None if they have none in common.

    The interval is a bootstrap over seeds and linked groups of test items. Lines that don't have
    their `hits` get Student's interval over the seeds, if each seed has test items of its own.
    """
    found = hits.difference(ours.lines, theirs.lines, scorer)
    if found is not None:
        mean, interval = found
        return Difference(mean, interval and (interval[0], interval[1]))
    first, second = ours.values(scorer), theirs.values(scorer)
    each = [first[s] - second[s] for s in first if s in second]
    if not each:
        return None
    mean, half = mean_interval(each)
    if half is None or not (ours.own_tests and theirs.own_tests):
        return Difference(mean, None)
    return Difference(mean, (mean - half, mean + half))
