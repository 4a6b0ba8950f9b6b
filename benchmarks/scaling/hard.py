"""Hard cases: the same pairs, made worse step by step, and what each method loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

from benchmarks.scaling.about import About
from benchmarks.scaling.cells import Setting, settings_of
from benchmarks.scaling.paired import difference
from benchmarks.scaling.tables import NOT_MEASURED, markdown
from fusemix_core.benchmark.config import DEFAULT
from fusemix_core.benchmark.lines import CHOSEN, Line
from fusemix_core.benchmark.page import mean_text
from fusemix_core.benchmark.summary import Entry

TITLE = "## Hard cases"


def hard_section(lines: Sequence[Line], about: About) -> list[str]:
    """One table per case of a set; `sets.toml` names the cases."""
    out = [TITLE, ""]
    settings = settings_of(lines)
    if not settings:
        return [*out, "Not measured.", ""]
    seeds = len({line["seed"] for line in lines})
    out += [
        fill(
            f"R@1 by the chosen scorer, {seeds} seed{'s' * (seeds != 1)}. Only training pairs are "
            "swapped: validation and test pairs are right. Brackets: the share of the first "
            "column's R@1 that is left. Bold: the "
            f"highest mean of a column. ▼: `{DEFAULT}` is below that method beyond the paired 95% "
            "interval.",
            100,
        ),
        "",
    ]
    cases: dict[tuple[str, str, str], list[Setting]] = {}
    for setting in settings:
        case = about.case(setting.set)
        cases.setdefault((case.of, case.name, setting.label), []).append(setting)
    for of, label in [(of, label) for of, name, label in cases if not name]:
        own = [key for key in cases if key[1] and (key[0], key[2]) == (of, label)]
        clean = cases.pop((of, "", label)) if own else []
        for key in own:  # the clean form is the first column of each
            cases[key][:0] = clean
    for (of, name, label), levels in cases.items():
        out += [f"### {of}{f': {name}' if name else ''}", "", f"{label}.", ""]
        out += case_table(levels, about)
        out += [f"- {text}" for s in levels for text in s.failed]
    return [*out, ""]


def case_table(levels: Sequence[Setting], about: About) -> list[str]:
    """One row per method, one column per level, at the largest size of each."""
    columns = [dict(level.sizes[-1].entries) for level in levels]
    tops = [max(e.interval(CHOSEN)[0] for e in column.values()) for column in columns]
    methods = list(dict.fromkeys(m for level in levels for m in level.methods))
    rows = []
    for method in methods:
        clean = columns[0].get(method)
        row = [f"`{method}`"]
        for number, (column, top) in enumerate(zip(columns, tops, strict=True)):
            row.append(_cell(column, method, top, clean if number else None))
        rows.append(row)
    heads = [f"{about.case(s.set).level} ({s.sizes[-1].pairs:,} pairs)" for s in levels]
    return markdown(["method", *heads], rows)


def _cell(column: Mapping[str, Entry], method: str, top: float, clean: Entry | None) -> str:
    if method not in column:
        return NOT_MEASURED
    entry = column[method]
    found = entry.interval(CHOSEN)
    text = f"**{mean_text(found)}**" if found[0] == top else mean_text(found)
    before = clean.interval(CHOSEN)[0] if clean else 0.0
    if before:
        text += f" ({100 * found[0] / before:.0f}%)"
    ours = column.get(DEFAULT)
    against = difference(ours, entry, CHOSEN) if ours and method != DEFAULT else None
    return f"{text} ▼" if against and against.below else text
