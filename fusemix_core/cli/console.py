"""Printing: tables, JSON, errors, progress."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fusemix_core.launch import launched

_WIDE = 160
"""Columns where output goes to a file or a pipe."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a terminal obeys rather than shows, and what no stream takes."""


class _Console(Console):
    """Shows texts as they are, whatever data they quote: nothing in them is markup, and what a
    terminal would obey is replaced."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*map(_shown, objects), **options)


def _shown(value: Any) -> Any:
    if isinstance(value, Text):
        value.plain = _CONTROL.sub("\ufffd", value.plain)
    return _CONTROL.sub("\ufffd", value) if isinstance(value, str) else value


_TERMINAL = sys.stdout is not None and sys.stdout.isatty()
out = _Console(width=None if _TERMINAL else _WIDE, markup=False, emoji=False)
err = _Console(stderr=True, markup=False, emoji=False)


def escape_what_streams_lack() -> None:
    """Have stdout and stderr write characters that their encoding lacks as escapes (`\\u4e2d`), as
    on a Windows pipe in cp1252: no text is worth a failed command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


GO_ON = "Go on with: "
"""Begins the note of an interrupt that has the command to go on with."""


def print_error(message: str, hint: str = "") -> None:
    """An error on stderr: what is wrong, then what to do; of several processes, in which."""
    launch = launched()
    where = "" if launch.processes == 1 else f" in process {launch.rank}"
    text = Text(f"Error{where}: ", style="bold red").append(message, style="default not bold")
    err.print(text, soft_wrap=True)
    if hint:
        err.print(Text(hint), soft_wrap=True)


_printed: ContextVar[set[str] | None] = ContextVar("printed", default=None)


@contextmanager
def notes_once() -> Iterator[None]:
    """Within it, a note of one command isn't printed again by the next."""
    token = _printed.set(set())
    try:
        yield
    finally:
        _printed.reset(token)


class Notes:
    """Prints notes on stderr, each once; `texts` are those of this command."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, text: str) -> None:
        if text in self.texts:
            return
        self.texts.append(text)
        before = _printed.get()
        if before is None or text not in before:
            err.print(Text(f"Note: {text}", style="yellow"), soft_wrap=True)
        if before is not None:
            before.add(text)


def print_json(value: Any) -> None:
    """`value` as JSON on stdout, and nothing else; in ASCII if the stream can't take its
    characters."""
    stream, text = out.file, json.dumps(value, indent=1, ensure_ascii=False)
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=1)
    stream.write(text + "\n")


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    title: str = "",
    empty: str = "",
    right: Sequence[bool] = (),
) -> None:
    """A table; None is a dash. Columns of numbers are justified to the right, or those that `right`
    marks."""
    if not rows:
        out.print(empty or "Nothing.")
        return
    table = Table(
        title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False
    )
    for i, column in enumerate(columns):
        numeric = all(isinstance(r[i], int | float) or r[i] is None for r in rows)
        justify = "right" if (right[i] if right else numeric) else "left"
        table.add_column(column, justify=justify, no_wrap=i == 0)
    for row in rows:
        table.add_row(*[_cell(v) for v in row])
    out.print(table)


def _cell(value: Any) -> Text:
    if value is None or value == "":
        return Text("–")
    if isinstance(value, float):
        return Text(f"{value:.1f}")
    return _shown(value if isinstance(value, Text) else Text(str(value)))


def size(count: int | None, digits: int = 1) -> str:
    """Bytes as people read them, with so many digits after the point."""
    if count is None:
        return "–"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.{0 if unit == 'B' else digits}f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def shorten(text: str, width: int = 90) -> str:
    """One line of at most `width` characters; of a path the end is kept."""
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    return "…" + text[-width + 1 :] if "/" in text and " " not in text else text[: width - 1] + "…"


def duration(seconds: float | None) -> str:
    """Seconds as people read them."""
    if seconds is None:
        return "unknown"
    if seconds < 1:
        return "under 1 s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class _Rate(TextColumn):
    """Items a second, smoothed."""

    def __init__(self, unit: str) -> None:
        super().__init__("")
        self._unit = unit

    def render(self, task: Any) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f} {self._unit}/s" if speed else "")


def progress(unit: str) -> Progress:
    """A bar with count, rate and time left, on stderr."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", markup=False),
        console=err,
        speed_estimate_period=30,
    )
