"""Tables and sentences of the page: recall, differences, and where one family overtakes another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.scaling.cells import CLOSED, GRADIENT, At, Setting
from benchmarks.scaling.paired import Difference, difference
from fusemix_core.benchmark.advice import seconds_text
from fusemix_core.benchmark.columns import PLAIN
from fusemix_core.benchmark.config import DEFAULT
from fusemix_core.benchmark.lines import CHOSEN
from fusemix_core.benchmark.page import mean_text

SCORERS = {PLAIN: "cosine", CHOSEN: "the chosen scorer"}
NOT_MEASURED = "–"
BELOW = "▼"

Cell = tuple[Setting, At, str, str, Difference]
"""Setting, size, method, scorer, and the default minus that method."""


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def recall_table(setting: Setting, scorer: str) -> list[str]:
    """One row per method, one column per size, the highest mean in bold. The recall by the chosen
    scorer has its seconds beside it."""
    tops = [max(e.interval(scorer)[0] for e in at.entries.values()) for at in setting.sizes]
    rows = []
    for method in setting.methods:
        row = [f"`{method}`"]
        for at, top in zip(setting.sizes, tops, strict=True):
            row.append(_recall(at, method, scorer, top))
        rows.append(row)
    heads = [f"R@1 by {SCORERS[scorer]}", *(f"{at.pairs:,} pairs" for at in setting.sizes)]
    return markdown(heads, rows)


def _recall(at: At, method: str, scorer: str, top: float) -> str:
    if method not in at.entries:
        return NOT_MEASURED
    entry = at.entries[method]
    found = entry.interval(scorer)
    text = f"**{mean_text(found)}**" if found[0] == top else mean_text(found)
    return f"{text}; {seconds_text(entry.seconds)}" if scorer == CHOSEN else text


def differences(settings: Sequence[Setting]) -> list[Cell]:
    """Of the default to every other method, at every size, by both scorers."""
    return [cell for setting in settings for cell in _differences(setting)]


def _differences(setting: Setting) -> Iterator[Cell]:
    for at in setting.sizes:
        ours = at.entries.get(DEFAULT)
        for method, theirs in at.entries.items():
            if ours is None or method == DEFAULT:
                continue
            for scorer in SCORERS:
                found = difference(ours, theirs, scorer)
                if found is not None:
                    yield setting, at, method, scorer, found


def difference_table(setting: Setting, cells: Sequence[Cell], scorer: str) -> list[str]:
    """The default minus each other method."""
    found = {(c[2], c[1].place): c[4] for c in cells if c[0] is setting and c[3] == scorer}
    if not found:
        return []
    rows = []
    for method in setting.methods:
        if method != DEFAULT:
            own = [found.get((method, at.place)) for at in setting.sizes]
            rows.append([f"`{method}`", *(_difference(d) for d in own)])
    heads = [f"`{DEFAULT}` minus, by {SCORERS[scorer]}"]
    return markdown([*heads, *(f"{at.pairs:,} pairs" for at in setting.sizes)], rows)


def _difference(found: Difference | None) -> str:
    if found is None:
        return NOT_MEASURED
    return f"**{found}** {BELOW}" if found.below else str(found)


def verdict(cells: Sequence[Cell]) -> list[str]:
    """In how many comparisons the default is below another method beyond the interval, and
    which."""
    if not cells:
        return [f"`{DEFAULT}` was not measured beside another method.", ""]
    known = [c for c in cells if c[4].interval is not None]
    below = [c for c in known if c[4].below]
    out = [
        f"`{DEFAULT}` is below another method beyond the paired 95% interval in **{len(below)}** "
        f"of {len(known):,} comparisons (set, size, method, scorer): "
        f"{'met' if not below else '**MISSED**'} (bar: 0)."
    ]
    if unknown := len(cells) - len(known):
        out[0] += f" {unknown:,} more have no interval."
    out[0] += " If all methods were equal, chance would put about 2.5% of them below."
    out.append("")
    for setting, at, method, scorer, found in below:
        out.append(
            f"- {setting.title}, {at.pairs:,} pairs, by {SCORERS[scorer]}: "
            f"`{method}`, {found} {BELOW}"
        )
    return [*out, ""] if below else out


def overtaking(settings: Sequence[Setting]) -> list[str]:
    """For each set: from which size on a method trained by gradient is above the best closed form
    beyond the interval."""
    rows = []
    for setting in settings:
        methods = {n for at in setting.sizes for n in at.family(GRADIENT)}
        largest = setting.sizes[-1].pairs
        for method in [n for n in setting.methods if n in methods]:
            rows.append([setting.title, f"`{method}`", _overtakes(setting, method)])
        if not methods:
            what = f"not measured up to {largest:,} pairs"
            rows.append([setting.title, NOT_MEASURED, what])
    return markdown(["set", "by gradient", "above every closed form"], rows)


def _overtakes(setting: Setting, method: str) -> str:
    """The first size at which it is above the best closed form, or how far it is at the largest."""
    last = None
    for at in setting.sizes:
        best = at.best(at.family(CLOSED))
        if best is None or method not in at.entries:
            continue
        found = difference(at.entries[method], best, CHOSEN)
        if found is None:
            continue
        last = f"{at.pairs:,} pairs: {found} against `{best.method}`"
        if found.above:
            return f"**from {last}**"
    return f"not up to {last}" if last else "not measured beside a closed form"
