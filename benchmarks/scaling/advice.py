"""The packaged table behind `fusemix recipes advise`, and "Which method should I take?"."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from textwrap import fill

from benchmarks.results import RESULTS
from benchmarks.scaling.about import BENCHMARKS, About, configured
from benchmarks.scaling.cells import At, Setting, plain, settings_of
from benchmarks.scaling.paired import difference
from benchmarks.scaling.tables import NOT_MEASURED, markdown
from fusemix_core.benchmark.advice import Advice, Measured, Place, advise, seconds_text
from fusemix_core.benchmark.lines import CHOSEN, NAME, Line, read_lines
from fusemix_core.benchmark.page import mean_text
from fusemix_core.benchmark.summary import Entry
from fusemix_core.registry import CORE

LADDER = (500, 1_500, 5_000, 15_000, 50_000, 150_000, 500_000)
"""Numbers of pairs that the page gives advice for, as far as there are measurements near."""

STEP = 3**0.5 * 1.1
"""A size is near a rung of the ladder up to about half the way to the next."""

Settings = Mapping[str, tuple[str, ...]]

FORMER = ("methods", "few")
"""The results that advice is taken from until there are those of the curves."""


def sources() -> tuple[str, ...]:
    """The results that advice is taken from: the curves, or what was measured before them."""
    return ("scaling",) if read_lines(RESULTS / "scaling" / NAME) else FORMER


def lines_of(names: Sequence[str]) -> list[Line]:
    return [line for name in names for line in read_lines(RESULTS / name / NAME)]


def settings_of_methods(names: Sequence[str]) -> Settings:
    """Label → what `--set` takes, of the methods in the configs of these results."""
    methods = [method for name in names for method in configured(BENCHMARKS / f"{name}.toml")]
    return {method.label: method.settings for method in methods}


def places(lines: Sequence[Line], about: About, overrides: Settings) -> list[Place]:
    """Every set, with its encoders and sizes, as advice is taken from them."""
    return [_place(s, at, about, overrides) for s in settings_of(lines) for at in s.sizes]


def table(found: Sequence[Place]) -> str:
    """The packaged JSON."""
    found = [asdict(place) for place in found]
    made = {"made_by": "python -m benchmarks.scaling", "places": found}
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _place(setting: Setting, at: At, about: About, overrides: Settings) -> Place:
    best = at.best(at.entries)
    if best is None:
        raise ValueError(f"{setting.set} has a size without a method")
    line = next(iter(best.lines.values()))
    return Place(
        setting.set,
        about.text(setting.set),
        {m: plain(name) for m, name in line["encoders"].items()},
        at.pairs,
        len(best.lines),
        tuple(_measured(e, best, overrides.get(e.method, ())) for e in at.entries.values()),
    )


def _measured(entry: Entry, best: Entry, overrides: tuple[str, ...]) -> Measured:
    line = next(iter(entry.lines.values()))
    mean, half = entry.interval(CHOSEN)
    behind = None if entry is best else difference(best, entry, CHOSEN)
    interval = behind and behind.interval
    return Measured(
        entry.method,
        line["recipe"]["name"],
        overrides,
        tuple(sorted(set(line["versions"]) - {CORE})),
        round(entry.seconds, 3),
        round(mean, 2),
        None if half is None else round(half, 2),
        round(behind.mean, 2) if behind else 0.0,
        interval and (round(interval[0], 2), round(interval[1], 2)),
    )


# -- the page --------------------------------------------------------------------------------------


def which_table(found: Sequence[Place]) -> list[str]:
    """One row per number of pairs that has a measurement near it."""
    out = ["## Which method should I take?", ""]
    rows = []
    for pairs in LADDER:
        advice = advise(found, pairs) if found else None
        if advice and any(place.times(pairs) < STEP for place in advice.nearest):
            near = [p for p in advice.nearest if p.times(pairs) < STEP]
            rows += _rows(replace(advice, nearest=tuple(near)))
    if not rows:
        return [*out, "Not measured.", ""]
    heads = ["about", "take", "measured", "its R@1", "best other", "fastest within noise"]
    text = (
        "From the sets measured at the nearest sizes. *Within noise*: not below the best beyond "
        "the paired 95% interval. `fusemix recipes advise --pairs N` answers for your number."
    )
    return [*out, fill(text, 100), "", *markdown(heads, rows)]


def _rows(advice: Advice) -> Iterator[list[str]]:
    """One for each place; the advice in the first."""
    for number, place in enumerate(advice.nearest):
        head = [f"{advice.pairs:,} pairs", f"`{advice.take.method}`"] if not number else ["", ""]
        own, other = place.method(advice.take.method), place.best_other(advice.take.method)
        yield [
            *head,
            f"{place.set}, {place.pairs:,}",
            _figure(own),
            f"`{other.method}` {_figure(other)}" if other else NOT_MEASURED,
            f"`{place.fastest.method}`, {seconds_text(place.fastest.seconds)}",
        ]


def _figure(found: Measured | None) -> str:
    if found is None:
        return NOT_MEASURED
    return f"{mean_text((found.r1, found.half))}, {seconds_text(found.seconds)}"
