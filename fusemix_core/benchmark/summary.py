"""From the lines of a benchmark to means, intervals, and who wins where."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusemix_core.benchmark.config import DEFAULT
from fusemix_core.benchmark.lines import CHOSEN, Line, of_scorer
from fusemix_core.evaluation.seeds import mean_interval


@dataclass(frozen=True)
class Entry:
    """One method at one place (set, encoders, size), over the seeds. `lines` by seed; `errors` of
    the seeds that failed."""

    place: Place
    method: str
    lines: Mapping[int, Line]
    errors: Mapping[int, str]

    def values(self, scorer: str, metric: str = "r1") -> dict[int, float]:
        """Test recall in percent by seed."""
        return {s: of_scorer(line, line["test"], scorer)[metric] for s, line in self.lines.items()}

    def interval(self, scorer: str) -> tuple[float, float | None]:
        """Mean R@1 over seeds, and the half-width of its 95% interval: Student's over the seeds;
        where these share their test items, the mean of the bootstrap over these items."""
        mean, half = mean_interval(list(self.values(scorer).values()))
        if self.own_tests:
            return mean, half
        found = [of_scorer(n, n["test"], scorer)["r1_interval"] for n in self.lines.values()]
        if None in found:
            return mean, None
        return mean, statistics.fmean((high - low) / 2 for low, high in found)

    @property
    def interval_kind(self) -> str:
        """The kind of `interval`: over how many seeds or groups, and its level."""
        seeds = len(self.lines)
        if self.own_tests:
            return (
                f"± is a 95% interval between {seeds} seeds, each with its own split (Student's t)."
            )
        counts = {_groups(line) for line in self.lines.values()}
        groups = f"{min(counts):,} linked groups of test items" if all(counts) else "test items"
        mean = f"; mean of {seeds} seeds that share them" if seeds > 1 else ""
        return (
            f"± is a 95% interval within a split: a bootstrap over {groups} "
            f"(1,000 resamples{mean}). It says nothing about other splits or seeds."
        )

    @property
    def own_tests(self) -> bool:
        """Whether there are several seeds, each with test items of its own."""
        tests = {line["test_items"] for line in self.lines.values()}
        return 1 < len(tests) == len(self.lines)

    def zero_shot(self, name: str) -> dict[int, float]:
        """Top-1 of a set of classes in percent by seed, by the scorer chosen."""
        return {
            seed: of_scorer(line, line["zero_shot"][name], CHOSEN)["top1"]
            for seed, line in self.lines.items()
            if name in line["zero_shot"]
        }

    @property
    def seconds(self) -> float:
        """The median over seeds."""
        return statistics.median(line["seconds"] for line in self.lines.values())

    @property
    def pairs(self) -> int:
        """How many pairs were fitted and chosen on, the mean over seeds."""
        return round(
            statistics.fmean(
                line["pairs"]["train"] + line["pairs"]["validation"] for line in self.lines.values()
            )
        )

    @property
    def fitted(self) -> int:
        """How many pairs were fitted on, the mean over seeds."""
        return round(statistics.fmean(line["pairs"]["train"] for line in self.lines.values()))


@dataclass(frozen=True)
class Place:
    """Where methods are compared."""

    set: str
    label: str
    size: int | None


@dataclass(frozen=True)
class Verdict:
    """Who wins at a place. `against`: method → how far it is ahead of the default, a mean of
    differences seed by seed, and the half-width of its 95% interval (`gap`; of classes, Student's
    over the seeds); None if there is none. `tied`: whether another method isn't shown to
    differ from the best."""

    place: Place
    pairs: int
    best: str
    value: float
    default: float | None
    against: Mapping[str, tuple[float, float | None]]
    tied: bool = False

    @property
    def ahead(self) -> list[str]:
        """The methods that are surely better than the default, the best first."""
        found = [m for m, (mean, half) in self.against.items() if half is not None and mean > half]
        return sorted(found, key=lambda m: -self.against[m][0])


def is_whole(line: Line) -> bool:
    """Whether a line that was read has all that is shown of a fit which did not fail."""
    entry = Entry(Place("", "", None), "", {0: line}, {})
    try:
        shown = [entry.interval(CHOSEN), entry.interval("cosine"), entry.seconds, entry.pairs]
        shown += [entry.zero_shot(name)[0] for name in line["zero_shot"]]
        return all(
            n is not None and math.isfinite(n)
            for s in shown
            for n in (s if isinstance(s, tuple) else (s,))
        )
    except Exception:  # the line may be anything that JSON can hold
        return False


def summarise(lines: Iterable[Line]) -> list[Entry]:
    """An entry for every place and method, in the order they come; the last line of a seed counts.

    Methods all of whose seeds failed have an entry without lines.
    """
    found: dict[tuple[Place, str], tuple[dict[int, Line], dict[int, str]]] = {}
    for line in lines:
        place = Place(line["set"], line["label"], line["size"])
        good, bad = found.setdefault((place, line["method"]), ({}, {}))
        seed = line["seed"]
        if "error" in line:
            bad[seed] = line["error"]
        else:
            good[seed] = line
            bad.pop(seed, None)
    return [Entry(place, method, *parts) for (place, method), parts in found.items()]


def places(entries: Iterable[Entry]) -> list[Place]:
    """Those that something was measured at."""
    return list(dict.fromkeys(e.place for e in entries if e.lines))


@dataclass(frozen=True)
class Gap:
    """How far a method is ahead of another in R@1, in percent points, and the 95% interval of that;
    None if there is none."""

    mean: float
    interval: tuple[float, float] | None

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.interval is None else (self.interval[1] - self.interval[0]) / 2

    @property
    def tied(self) -> bool:
        """Whether the interval contains 0: no difference is shown."""
        return self.interval is not None and self.interval[0] <= 0 <= self.interval[1]

    @property
    def text(self) -> str:
        """`1.2 [-0.4, 2.8]`."""
        if self.interval is None:
            return f"{self.mean:.1f}"
        return f"{self.mean:.1f} [{self.interval[0]:.1f}, {self.interval[1]:.1f}]"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        low_high = self.interval and [round(v, 3) for v in self.interval]
        return {"mean": round(self.mean, 3), "interval": low_high}


def gap(first: Entry, second: Entry, scorer: str = CHOSEN) -> Gap:
    """How far the first method is ahead of the second at their place.

    The interval is the paired bootstrap of `hits.difference`. Lines without hits have Student's
    over the differences seed by seed, if each seed has its own test items.
    """
    from fusemix_core.benchmark.hits import difference  # imports numpy

    if (found := difference(first.lines, second.lines, scorer)) is not None:
        mean, interval = found
        return Gap(mean, None if interval is None else (interval[0], interval[1]))
    ours, theirs = first.values(scorer), second.values(scorer)
    both = [ours[s] - theirs[s] for s in ours if s in theirs]
    if not both:
        means = (statistics.fmean(values.values()) for values in (ours, theirs))
        return Gap(next(means) - next(means), None)
    mean, half = mean_interval(both)
    if half is None or not first.own_tests:
        return Gap(mean, None)
    return Gap(mean, (mean - half, mean + half))


def _groups(line: Line) -> int:
    """How many groups of linked test items a line's queries are of; 0 if it doesn't say."""
    from fusemix_core.benchmark.hits import unpacked_labels  # imports numpy

    queries = line.get("queries", {}).values()
    return len({int(label) for q in queries for label in unpacked_labels(q["groups"])})


def verdicts(entries: Sequence[Entry], zero_shot: str | None = None) -> list[Verdict]:
    """One for each place, by R@1, or by top-1 of a set of classes, which all seeds share: its
    intervals are over the fits only."""
    out = []
    for place in places(entries):
        here = {e.method: e for e in entries if e.place == place and e.lines}
        values = {
            m: e.zero_shot(zero_shot) if zero_shot else e.values(CHOSEN) for m, e in here.items()
        }
        means = {m: statistics.fmean(v.values()) for m, v in values.items() if v}
        if not means:
            continue
        best = max(means, key=means.__getitem__)
        against = {}
        for name, theirs in values.items():
            own = values.get(DEFAULT, {})
            both = [theirs[s] - own[s] for s in theirs if s in own]
            if name != DEFAULT and both:
                mean, half = mean_interval(both)
                if not zero_shot:
                    half = gap(here[name], here[DEFAULT]).half
                against[name] = mean, half
        pairs = here[best].pairs
        tied = not zero_shot and any(gap(here[best], e).tied for m, e in here.items() if m != best)
        found = Verdict(place, pairs, best, means[best], means.get(DEFAULT), against, tied)
        out.append(found)
    return out
