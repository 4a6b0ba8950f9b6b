"""A benchmark as tables for a paper (LaTeX with booktabs) and for other programs (CSV)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from fusemix_core.benchmark.columns import Column, at_k, column, intervals_of
from fusemix_core.benchmark.lines import CHOSEN
from fusemix_core.benchmark.page import of_setting, settings
from fusemix_core.benchmark.summary import Entry, places
from fusemix_core.errors import ArtefactError

HEADS = (
    *("set", "encoders", "pairs", "fitted_on", "method", "seeds", "scorer"),
    *("r1", "r1_half_interval", "interval", "r5", "r10", "seconds"),
    *("best", "best_leads_by", "best_leads_low", "best_leads_high", "tied_with_best"),
)
"""The columns of the CSV: recalls and their intervals in percent, by the scorer chosen."""

_SPECIAL = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"},
}


def write_csv(entries: Sequence[Entry], path: Path) -> Path:
    """One line for each method at each place (set, encoders, size); see `HEADS`."""
    rows = [_row(e, column(entries, e.place, CHOSEN)) for e in entries if e.lines]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([HEADS, *rows])
    except OSError as error:
        raise ArtefactError(f"{path} can't be written: {error}") from error
    return path


def _row(entry: Entry, of: Column) -> list[object]:
    mean, half = entry.interval(CHOSEN)
    scorers = sorted({line["scorer"] for line in entry.lines.values()})
    recalls = [_short(mean), _short(half), entry.interval_kind]
    cells: list[object] = [entry.place.set, entry.place.label, entry.pairs, entry.fitted]
    cells += [entry.method, len(entry.lines), "+".join(scorers), *recalls]
    cells += [_short(at_k(entry, 5)), _short(at_k(entry, 10)), _short(entry.seconds)]
    if entry.method == of.best:
        return [*cells, "yes", 0, 0, 0, "yes"]
    lead = of.behind[entry.method]
    low, high = lead.interval or (None, None)
    tied = {True: "yes", False: "no"}[lead.tied] if lead.interval else ""
    return [*cells, "no", _short(lead.mean), _short(low), _short(high), tied]


def _short(value: float | None) -> float | str:
    return "" if value is None else round(value, 3)


def write_latex(entries: Sequence[Entry], path: Path) -> Path:
    """A table for each set and encoders; needs `booktabs`.

    With one size it has R@1, R@5, R@10 and seconds, with several R@1 of each. Bold are the highest
    R@1 and those that are not shown to differ from it.
    """
    parts = ["% Needs \\usepackage{booktabs}. Made by fusemix bench."]
    for setting in settings(entries):
        parts.append(_table(of_setting(entries, setting)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    except OSError as error:
        raise ArtefactError(f"{path} can't be written: {error}") from error
    return path


def _table(entries: Sequence[Entry]) -> str:
    found = {place: column(entries, place, CHOSEN) for place in places(entries)}
    if not found:
        return ""
    heads = [f"{of.pairs:,} pairs" for of in found.values()]
    if len(found) == 1:
        heads = ["R@1", "R@5", "R@10", "seconds"]
    by = {(e.place, e.method): e for e in entries if e.lines}
    rows = []
    for method in dict.fromkeys(e.method for e in entries if e.lines):
        cells = []
        for place, of in found.items():
            entry = by.get((place, method))
            width = 4 if len(found) == 1 else 1
            cells += ["--"] * width if entry is None else _cells(entry, of, width)
        rows.append(" & ".join([escaped(method), *cells]) + r" \\")
    first = next(iter(found))
    what = "recall" if len(found) == 1 else "R@1"
    pairs = f", {found[first].pairs:,} pairs" if len(found) == 1 else ""
    caption = (
        f"{first.set}, {first.label}{pairs}: test {what} in percent, mean of both directions. "
        f"{' '.join(intervals_of(entries))} Bold: the highest R@1, and whatever is not shown to "
        "differ from it (paired bootstrap, 95%)."
    )
    caption = escaped(caption).replace("±", r"$\pm$")
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{l{'r' * len(heads)}}}",
            r"\toprule",
            " & ".join(["method", *map(escaped, heads)]) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _cells(entry: Entry, of: Column, width: int) -> list[str]:
    """R@1 with its interval, and if there is the width R@5, R@10 and seconds."""
    mean, half = entry.interval(CHOSEN)
    text = f"{mean:.1f}" if half is None else rf"{mean:.1f} $\pm$ {half:.1f}"
    if entry.method in of.leaders:
        text = rf"\textbf{{{mean:.1f}}}{text[len(f'{mean:.1f}') :]}"
    if width == 1:
        return [text]
    return [text, f"{at_k(entry, 5):.1f}", f"{at_k(entry, 10):.1f}", f"{entry.seconds:.3g}"]


def escaped(text: str) -> str:
    """A text as LaTeX takes it."""
    return "".join(_SPECIAL.get(c, c) for c in text)
