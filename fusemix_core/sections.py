"""The display of an evaluator's metrics: sections of text, tables and figures, as plain data.

The report, the terminal and the model card print these. They escape every text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusemix_core.errors import ContractError

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Share:
    """A percentage and its interval: a cell that the report draws with a bar.

    Attributes:
        value: 0 to 100, None if unknown.
        interval: (low, high), None if unknown.
    """

    value: float | None
    interval: Sequence[float] | None = None


Cell = str | int | float | Share | None


@dataclass(frozen=True)
class Table:
    """A table with one header row. The first column names the rows.

    Attributes:
        columns: the headings.
        rows: as many cells per row as there are headings; None is a dash.
        caption: a line above the table.
        footer: a last row that sums up the others, such as their mean.
        folded: a title. With one, the report folds the table under it, and the terminal and the
            model card leave it out.

    Example:
        `Table(["direction", "R@1"], [["image → text", Share(41.2, (38.0, 44.9))]])`
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    footer: Sequence[Cell] | None = None
    folded: str = ""


@dataclass(frozen=True)
class Points:
    """A map of items: the report shows what is under the pointer, and colours points by choice.

    Attributes:
        at: (x, y) of each point, on one scale.
        items: (modality, number of the item in the dataset) of each; `Measured.ids` has them.
        colours: title → a label for each point, such as its modality. The first is shown first.
        lines: (i, j) of points that are joined.

    Example:
        `Points([(0, 0), (1, 2)], [("image", 7), ("text", 3)], {"modality": ["image", "text"]})`
    """

    at: Sequence[tuple[float, float]]
    items: Sequence[tuple[str, int]]
    colours: Mapping[str, Sequence[str]]
    lines: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes:
        drawing: a function that draws on the matplotlib axes it is given, the bytes of a PNG, or
            `Points`. Colours `C0` to `C5` follow the page, in its light and dark form.
        title, legend, caption: texts beside it; the legend names the colours in their order.
        alt: what the figure shows, for people who don't see it.
        height: pixels; the width is 400.

    Example:
        `Figure(lambda axes: axes.plot(steps, losses), title="Loss", alt="Loss by step")`
    """

    drawing: Callable[[Any], Any] | bytes | Points | str
    title: str = ""
    legend: Sequence[str] = ()
    caption: str = ""
    alt: str = ""
    height: int = 260


@dataclass(frozen=True)
class Tile:
    """One of the few numbers at the top of the report.

    Attributes:
        label: what the number is.
        value: the number; a `Share` is shown in percent with its interval.
        note: a few words to compare it with, such as `chance 0.1%`.
    """

    label: str
    value: Cell
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: by default the name of the evaluator.
        text: a sentence or two before the tables: what was measured, in which unit.
        tables, figures: as many as are needed.
        note: a sentence after them, such as the meaning of the columns.
        headline: numbers for the top of the report. A section with some comes first.

    Example:
        `Section("Hubs", "Share of queries …", tables=[table], figures=[figure])`
    """

    title: str = ""
    text: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    note: str = ""
    headline: Sequence[Tile] = ()


def numbers_of(metrics: Mapping[str, Any]) -> Section:
    """Every number of nested metrics in one table, for an evaluator that makes no sections."""
    rows = [[path, value] for path, value in _numbers(metrics, "")]
    return Section(tables=[Table(["metric", "value"], rows)] if rows else [])


def _numbers(metrics: Mapping[str, Any], at: str) -> list[tuple[str, Cell]]:
    found: list[tuple[str, Cell]] = []
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            found += _numbers(value, f"{at}{key}.")
        elif isinstance(value, str | int | float):
            found.append((f"{at}{key}", str(value) if isinstance(value, bool) else value))
    return found


def check_section(component: str, section: Any) -> None:
    """Raise `ContractError` unless `section` is a `Section` that can be shown."""
    if not isinstance(section, Section):
        raise ContractError(component, "a Section", repr(section))
    kinds = {"tables": Table, "figures": Figure, "headline": Tile}
    for name, kind in kinds.items():
        for part in getattr(section, name):
            if not isinstance(part, kind):
                raise ContractError(component, f"{kind.__name__}s as {name}", repr(part))
    for table in section.tables:
        _check_table(component, table)
    for figure in section.figures:
        if isinstance(figure.drawing, bytes):
            if not figure.drawing.startswith(PNG):
                raise ContractError(component, "the bytes of a PNG", "other bytes")
        elif isinstance(figure.drawing, Points):
            _check_points(component, figure.drawing)
        elif not callable(figure.drawing):
            raise ContractError(component, "a function or bytes to draw", repr(figure.drawing))
    for tile in section.headline:
        _check_cell(component, tile.value)


def _check_points(component: str, points: Points) -> None:
    count = len(points.at)
    lengths = [len(points.items), *map(len, points.colours.values())]
    ends = [end for line in points.lines for end in line]
    if not points.colours or any(n != count for n in lengths):
        raise ContractError(
            component, f"{count} items and colours for {count} points", f"{lengths}"
        )
    if ends and not 0 <= min(ends) <= max(ends) < count:
        raise ContractError(component, f"lines between {count} points", "lines to others")


def _check_table(component: str, table: Table) -> None:
    footer = [] if table.footer is None else [table.footer]
    for row in [*table.rows, *footer]:
        if len(row) != len(table.columns):
            raise ContractError(
                component, f"{len(table.columns)} cells per row of a table", f"{len(row)}"
            )
        for cell in row:
            _check_cell(component, cell)


def _check_cell(component: str, cell: Any) -> None:
    if not isinstance(cell, str | int | float | Share | None):
        raise ContractError(component, "a text, a number or a Share as a cell", repr(cell))
