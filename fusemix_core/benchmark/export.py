"""A benchmark as tables for a paper (LaTeX with booktabs) and for other programs (CSV)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from fusemix_core.benchmark import rerank_page
from fusemix_core.benchmark.columns import Column, at_k, column, intervals_of
from fusemix_core.benchmark.lines import CHOSEN, Line
from fusemix_core.benchmark.page import of_setting, settings
from fusemix_core.benchmark.rerank_page import best, protocol, summarised
from fusemix_core.benchmark.summary import Entry, places
from fusemix_core.errors import ArtefactError

HEADS = (
    *("set", "encoders", "pairs", "fitted_on", "method", "seeds", "scorer"),
    *("r1", "r1_half_interval", "interval", "r5", "r10", "seconds"),
    *("best", "best_leads_by", "best_leads_low", "best_leads_high", "tied_with_best"),
)
"""The columns of the CSV: recalls and their intervals in percent, by the scorer chosen."""

RERANKER_HEADS = (
    *("reranker", "r1", "r5", "r10", "seeds"),
    *("r1_gain", "r1_gain_low", "r1_gain_high", "verdict"),
    *("weights", "ms_per_query", "cpu_seconds", "parameters"),
)
"""The columns of the CSV of re-rankers: recalls and gains in percent, weights by seed."""

NEEDS = "% Needs \\usepackage{booktabs}. Made by fusemix bench."

_SPECIAL = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"},
}


def write_csv(entries: Sequence[Entry], path: Path) -> Path:
    """One line for each method at each place (set, encoders, size); see `HEADS`."""
    rows = [_row(e, column(entries, e.place, CHOSEN)) for e in entries if e.lines]
    return _written(path, _csv([HEADS, *rows]))


def write_rerankers_csv(lines: Sequence[Line], path: Path) -> Path:
    """One line for each re-ranker, and one for the order of the fused model; see
    `RERANKER_HEADS`."""
    rows: list[list[object]] = []
    for row in summarised(lines):
        cells: list[object] = [row.name, *map(_short, row.recalls)]
        if row.gain is not None:
            low, high = row.gain.interval or (None, None)
            cells += [len(row.lines), _short(row.gain.mean), _short(low), _short(high), row.verdict]
            cells += [row.weights, _short(row.ms), _short(row.cpu_seconds), row.parameters]
        rows.append(cells + [""] * (len(RERANKER_HEADS) - len(cells)))
    return _written(path, _csv([RERANKER_HEADS, *rows]))


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _written(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
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
    tables = [_table(of_setting(entries, setting)) for setting in settings(entries)]
    return _written(path, "\n\n".join([NEEDS, *tables]) + "\n")


def write_rerankers_latex(lines: Sequence[Line], path: Path) -> Path:
    """One table; needs `booktabs`. Bold are the highest R@1 and those that are not shown to differ
    from it."""
    of = best(lines)
    if of is None:
        return _written(path, f"{NEEDS}\n")
    rows = []
    for row, cells in zip(summarised(lines), rerank_page.cells(lines), strict=True):
        shown = [escaped(cell).replace("–", "--") for cell in cells]
        if row.name in of.leaders:
            shown[1] = rf"\textbf{{{shown[1]}}}"
        rows.append(shown)
    caption = (
        f"{protocol(lines)} Bold: the highest R@1, and whatever is not shown to differ from it."
    )
    return _written(path, f"{NEEDS}\n\n{_tabular(caption, rerank_page.HEADS, rows)}\n")


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
        rows.append([escaped(method), *cells])
    first = next(iter(found))
    what = "recall" if len(found) == 1 else "R@1"
    pairs = f", {found[first].pairs:,} pairs" if len(found) == 1 else ""
    caption = (
        f"{first.set}, {first.label}{pairs}: test {what} in percent, mean of both directions. "
        f"{' '.join(intervals_of(entries))} Bold: the highest R@1, and whatever is not shown to "
        "differ from it (paired bootstrap, 95%)."
    )
    return _tabular(caption, ["method", *heads], rows)


def _tabular(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; its cells are LaTeX, caption and heads are not."""
    shown = escaped(caption).replace("±", r"$\pm$").replace("→", r"$\to$")
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{shown}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            " & ".join(map(escaped, heads)) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in rows),
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
