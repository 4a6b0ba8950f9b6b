"""How soon the default has the recall at which the published recipe ends."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness import Bar
from benchmarks.scaling.cells import PUBLISHED, Setting
from fusemix_core.benchmark.config import DEFAULT
from fusemix_core.benchmark.lines import CHOSEN, Line

SOONER = Bar(300, at_least=True)
HIGHER = Bar(1.5, at_least=True)


@dataclass(frozen=True)
class Race:
    """The default and the published recipe at one size of a set.

    `end`: the validation R@1 that the published recipe ends at, in percent, mean over seeds.
    `whole`: median seconds of its fit. `until`: median seconds until the default has that recall.
    `ratios`: whole fit by that time, for each seed where it gets there. `own`: the median of the
    same ratios, counted from the moment the published recipe first has that recall instead of its
    whole fit; None without trajectories.
    `bound`: a line has no trajectory, so its whole fit was counted. `missed`: seeds that never get
    there. `recall`: ratio of R@1 within the time of the published recipe; `recall_on`: of which
    split. `published`: its test R@1 by the chosen scorer, in percent. `cut`: the share of its own
    steps that a limit on time left to it, None if it took all.
    """

    title: str
    pairs: int
    end: float
    whole: float
    until: float | None
    ratios: tuple[float, ...]
    own: float | None
    bound: bool
    missed: int
    seeds: int
    recall: float | None
    recall_on: str
    published: float
    cut: float | None

    @property
    def ratio(self) -> float | None:
        """The geometric mean over seeds; None if some seed never gets there."""
        return None if self.missed or not self.ratios else geometric(self.ratios)


def races(settings: Sequence[Setting]) -> list[Race]:
    """One for each size at which both were measured with a seed in common."""
    found = []
    for setting in settings:
        for at in setting.sizes:
            ours, theirs = at.entries.get(DEFAULT), at.entries.get(PUBLISHED)
            if ours is None or theirs is None:
                continue
            seeds = [s for s in ours.lines if s in theirs.lines]
            if seeds:
                both = [(ours.lines[s], theirs.lines[s]) for s in seeds]
                found.append(race(setting, at.pairs, both))
    return found


def race(setting: Setting, pairs: int, both: Sequence[tuple[Line, Line]]) -> Race:
    """Of the lines of both recipes, seed by seed."""
    ends = [ends_at(theirs) for _, theirs in both]
    times = [reaches(ours, end) for (ours, _), end in zip(both, ends, strict=True)]
    reached = [
        (time, theirs, end)
        for time, (_, theirs), end in zip(times, both, ends, strict=True)
        if time < math.inf
    ]
    own = [first_at(theirs, end) / time for time, theirs, end in reached if has_course(theirs)]
    recall, on = recall_within(both)
    return Race(
        setting.title,
        pairs,
        statistics.fmean(ends),
        statistics.median(theirs["seconds"] for _, theirs in both),
        statistics.median(time for time, *_ in reached) if reached else None,
        tuple(theirs["seconds"] / time for time, theirs, _ in reached),
        statistics.median(own) if own else None,
        not all(has_course(ours) for ours, _ in both),
        len(both) - len(reached),
        len(both),
        recall,
        on,
        statistics.fmean(_r1(theirs, "test") for _, theirs in both),
        cut_to([theirs for _, theirs in both]),
    )


def cut_to(lines: Sequence[Line]) -> float | None:
    """The share of its own steps that a limit left to a fit, the mean; None if it cut none."""
    limits = [line["limit"] for line in lines if line.get("limit")]
    shares = [limit["steps"] / limit["own_steps"] for limit in limits]
    shares += [1.0] * (len(lines) - len(limits))
    return statistics.fmean(shares) if min(shares) < 1 else None


def has_course(line: Line) -> bool:
    return bool(line.get("trajectory"))


def held(line: Line) -> list[tuple[float, float]]:
    """(seconds, validation R@1 in percent) of what a fit would keep, each time that changes: the
    best score so far. Of a line without a trajectory, its end."""
    if not has_course(line):
        return [(_moment(line["seconds"]), line["validation"]["cosine"]["r1"])]
    points, best = [], -math.inf
    for seconds, r1, score in line["trajectory"]:
        if score > best:
            points.append((_moment(seconds), r1))
            best = score
    return points


def ends_at(line: Line) -> float:
    """The validation R@1 that a fit ends at: of its last evaluation, or of what it keeps if that is
    higher."""
    last = line["trajectory"][-1][1] if has_course(line) else -math.inf
    return max(last, held(line)[-1][1])


def reaches(line: Line, recall: float) -> float:
    """Seconds until what a fit would keep has this validation R@1; inf if it never does."""
    return next((seconds for seconds, r1 in held(line) if r1 >= recall), math.inf)


def first_at(line: Line, recall: float) -> float:
    """Seconds until any evaluation of a fit, kept or not, has this validation R@1."""
    return next((_moment(s) for s, r1, _ in line["trajectory"] if r1 >= recall), math.inf)


def recall_within(both: Sequence[tuple[Line, Line]]) -> tuple[float | None, str]:
    """R@1 of the default by that of the published recipe, within the time of the latter: on test if
    the whole fit of the default takes no longer, else on validation at that moment."""
    if all(ours["seconds"] <= theirs["seconds"] for ours, theirs in both):
        mean, of = (
            statistics.fmean(_r1(line, "test") for line in lines)
            for lines in zip(*both, strict=True)
        )
        return (mean / of if of else None), "test"
    if not all(has_course(ours) for ours, _ in both):
        return None, ""
    then = [
        max((r1 for s, r1 in held(ours) if s <= theirs["seconds"]), default=0.0)
        for ours, theirs in both
    ]
    end = statistics.fmean(ends_at(theirs) for _, theirs in both)
    return (statistics.fmean(then) / end if end else None), "validation"


def geometric(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(v) for v in values))


def _r1(line: Line, split: str, scorer: str = CHOSEN) -> float:
    return line[split][line["scorer"] if scorer == CHOSEN else scorer]["r1"]


def _moment(seconds: float) -> float:
    """At least a millisecond, which seconds are rounded to."""
    return max(seconds, 1e-3)
