"""Whether the methods of a column differ: each is compared with the best, and said in words."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusemix_core.benchmark.config import ALL
from fusemix_core.benchmark.lines import CHOSEN, of_scorer
from fusemix_core.benchmark.summary import Entry, Gap, Place, gap, places

PLAIN = "cosine"
SCORERS = {PLAIN: "by cosine", CHOSEN: "by the scorer chosen"}
"""The two columns of a place: how they score, and how people are told."""


@dataclass(frozen=True)
class Column:
    """The R@1 of all methods at a place by one scorer.

    `scorer` is one of `SCORERS`. `means`: method → mean over seeds, in percent. `behind`: every
    method but the best → how far the best is ahead of it.
    """

    place: Place
    pairs: int
    scorer: str
    means: Mapping[str, float]
    behind: Mapping[str, Gap]

    @property
    def best(self) -> str:
        """The method with the highest mean."""
        return max(self.means, key=lambda method: self.means[method])

    @property
    def tied(self) -> list[str]:
        """Methods that are not shown to differ from the best: their interval contains 0."""
        return [m for m, found in self.behind.items() if found.tied]

    @property
    def unknown(self) -> list[str]:
        """Methods for which there is no interval."""
        return [m for m, found in self.behind.items() if found.interval is None]

    @property
    def leaders(self) -> set[str]:
        """The best method, and those that tie with it."""
        return {self.best, *self.tied}

    @property
    def sentence(self) -> str:
        """The verdict in plain words, with the place."""
        return f"{self.place.set}, {self.place.label}, {self.short_sentence}"

    @property
    def short_sentence(self) -> str:
        """The verdict in plain words, with the size and the scorer."""
        return f"{self.pairs:,} pairs, {SCORERS[self.scorer]}: {self.verdict}"

    @property
    def verdict(self) -> str:
        """The best one, and those that do not differ from it."""
        top = f"`{self.best}` has the highest R@1, {self.means[self.best]:.1f}"
        if not self.behind:
            return f"{top}; nothing to compare it with."
        if len(self.unknown) == len(self.behind):
            return f"{top}; one seed without a record of its queries says nothing about noise."
        if len(self.tied) == len(self.behind):
            return (
                f"no difference at this size. {top}, but the paired 95% interval of its lead over "
                f"each other method contains 0 ({_leads(self.behind)})."
            )
        if self.tied:
            tied = {m: self.behind[m] for m in self.tied}
            others = len(self.behind) - len(tied) - len(self.unknown)
            return (
                f"{top}, but at this size it is not shown to be ahead of {_named(self.tied)} "
                f"(paired 95% interval of its lead: {_leads(tied)}). Its lead over the other "
                f"{'method' if others == 1 else 'methods'} is beyond the noise."
            )
        return f"{top}, and is ahead of every other method beyond the noise."

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the means, the paired intervals, the ties and the verdict."""
        return {
            "set": self.place.set,
            "encoders": self.place.label,
            "size": ALL if self.place.size is None else self.place.size,
            "pairs": self.pairs,
            "scorer": self.scorer,
            "r1": {m: round(mean, 3) for m, mean in self.means.items()},
            "best": self.best,
            "lead": {m: found.as_dict() for m, found in self.behind.items()},
            "tied": self.tied,
            "verdict": self.sentence.replace("`", ""),
        }


def columns(entries: Sequence[Entry]) -> list[Column]:
    """Two columns for each place, by cosine and by the scorer chosen."""
    return [column(entries, place, scorer) for place in places(entries) for scorer in SCORERS]


def column(entries: Sequence[Entry], place: Place, scorer: str) -> Column:
    """The column of a place; `scorer` is one of `SCORERS`."""
    here = {e.method: e for e in entries if e.place == place and e.lines}
    means = {m: e.interval(scorer)[0] for m, e in here.items()}
    best = max(means, key=lambda m: means[m])
    behind = {m: gap(here[best], e, scorer) for m, e in here.items() if m != best}
    return Column(place, here[best].pairs, scorer, means, behind)


def intervals_of(entries: Sequence[Entry]) -> list[str]:
    """The kinds of interval that ± is in these means, one line each."""
    return list(dict.fromkeys(e.interval_kind for e in entries if e.lines))


PAIRED = (
    "Two methods are compared on the same test queries: a bootstrap of their difference over seeds "
    "and linked groups of test items (1,000 resamples, 95%, not corrected for the number of "
    "methods); Student's t of the differences seed by seed if the queries were not recorded."
)
"""The kind of the intervals of differences."""


def at_k(entry: Entry, k: int) -> float:
    """Mean over seeds of test R@k by the scorer chosen, in percent."""
    found = (of_scorer(line, line["test"], CHOSEN) for line in entry.lines.values())
    return statistics.fmean(one[f"r{k}"] for one in found)


_SHOWN = 3


def _leads(behind: Mapping[str, Gap]) -> str:
    """The first few leads, and how many more there are."""
    named = [f"`{m}` {found.text}" for m, found in behind.items()]
    more = [f"{len(named) - _SHOWN} more"] * (len(named) > _SHOWN)
    return "; ".join([*named[:_SHOWN], *more])


def _named(methods: Sequence[str]) -> str:
    *first, last = (f"`{m}`" for m in methods)
    return f"{', '.join(first)} and {last}" if first else last
