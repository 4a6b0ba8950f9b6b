"""CSV and TSV manifests."""

from __future__ import annotations

import csv
import os
from collections import Counter, deque
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from fusemix_core.data.dataset import Rejected
from fusemix_core.data.dialect import (
    SAMPLE,
    check_delimiter,
    escaped_cells,
    find_mark,
    is_media_name,
    plain_cells,
    swallows_rows,
    token_cells,
    told_mark,
)
from fusemix_core.data.opening import open_text
from fusemix_core.data.references import Fault
from fusemix_core.data.rows import MAX_PATH, Block, Note, Reader, Row, one_by_one
from fusemix_core.data.runs import Runs, table
from fusemix_core.errors import DataError, short

MAX_LINE = 64 << 20
"""Bytes. A line longer than this is not a row of a manifest."""
MAX_LINES = 200
"""A quoted cell may run over this many lines, and be as long as one line may be; more is a quote
that is never closed."""
TOO_LONG = f"the line is longer than {MAX_LINE >> 20} MiB; write one row per line"
SUFFIXES = (".csv", ".tsv", ".tab", ".psv", ".txt", ".token")
_PIECE = 1 << 20
_NEVER_CLOSED = "a quote is opened and never closed"
_SWALLOWS = (
    "a quote is opened here and closed lines later, with whole rows between; close it, or double "
    'quotes that belong to the text ("")'
)


def table_suffix(path: Path) -> str:
    """The suffix in lower case; of a file in gzip, the one before `.gz`."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


class DelimitedReader(Reader):
    """Tables in text files (`.csv`, `.tsv`, `.txt`, also in gzip), first line the header.

    Cells are quoted as in RFC 4180, and separated by the mark (comma, tab, semicolon, pipe) that
    splits the lines into as many cells as the header; a first line `sep=;` tells it, too. A quoted
    cell may have several lines, but not whole rows: a quote that would swallow rows costs its own
    row. If tabs separate the cells, a line that is not quoted properly is split at its tabs.
    Flickr8k's `.token` files, which have no header, are read as the columns `image`, `number` and
    `text`. Columns without a name are left out; two of one name can be used if they are equal.

    Args:
        delimiter: what separates cells, a character or `tab`; None finds it.
        encoding: None is UTF-8.
    """

    def __init__(self, *, delimiter: str | None = None, encoding: str | None = None) -> None:
        self.delimiter = None if delimiter is None else check_delimiter(delimiter)
        self.encoding = encoding

    def matches(self, path: Path) -> bool:
        return path.is_file() and table_suffix(path) in SUFFIXES

    def rows(self, path: Path) -> Iterator[Row | Rejected | Note]:
        return one_by_one(self.blocks(path))

    def blocks(self, path: Path) -> Iterator[Row | Rejected | Block]:
        with open_text(path, self.encoding) as file:
            lines = Lines(Runs(file))
            sample = _sample(lines, path)
            if sum(token_cells(line) is not None for line in sample) > len(sample) / 2:
                yield from _token_rows(lines, path)
                return
            mark = self._mark(lines, sample, path)
            header = lines.ahead(1)
            spaced = mark in ",;" and bool(header) and _is_spaced(header[0], mark)
            yield from _table_rows(_Records(lines, mark, spaced), path, self.encoding)

    def _mark(self, lines: Lines, sample: list[str], path: Path) -> str:
        told = told_mark(sample[0]) if sample else None
        if told is not None:
            next(lines)
            sample = sample[1:]
        return self.delimiter or told or find_mark(sample, table_suffix(path))


class Lines:
    """The lines of a file as str, with bytes that are not UTF-8 kept as surrogates.

    Lines since `mark` are kept, so that `back` can return to the second of them. A line longer than
    `MAX_LINE` is passed over, and `LongLine` raised in its place.
    """

    def __init__(self, file: Runs) -> None:
        self._file = file
        self._ahead: deque[str | None] = deque()
        self.mark()

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        if len(self.taken) >= MAX_LINES or self._length > MAX_LINE:
            raise UnclosedQuote
        line = self._ahead.popleft() if self._ahead else self._next_line()
        if line is None and self.taken:
            self._ahead.appendleft(line)
            raise UnclosedQuote
        self.taken.append(line or "")
        if line is None:
            raise LongLine
        self._length += len(line)
        return line

    def _next_line(self) -> str | None:
        data = read_line(self._file)
        if data == b"":
            raise StopIteration
        return None if data is None else data.decode("utf-8", "surrogateescape")

    def ahead(self, count: int) -> list[str]:
        """Up to `count` lines that come next, left in place. It ends before one that is too long;
        the first may be left out of the list for that reason."""
        size = 0
        while len(self._ahead) < count and size < _PIECE:
            try:
                self._ahead.append(self._next_line())
            except StopIteration:
                break
            if self._ahead[-1] is None:
                break
            size += len(self._ahead[-1])
        lines = list(self._ahead)
        if lines and lines[0] is None:
            raise LongLine
        return [line for line in lines if line is not None]

    def run(self, mark: str, width: int) -> bytes:
        """`Runs.run`, where no lines are held that come before."""
        return b"" if self._ahead else self._file.run(mark, width, MAX_LINE)

    def mark(self) -> None:
        self.taken: list[str] = []
        self._length = 0

    def back(self) -> str:
        """Give back all lines since `mark` but the first, which is returned."""
        first, *rest = self.taken
        self._ahead.extendleft(reversed(rest))
        self.mark()
        return first


def read_line(file: BinaryIO | Runs) -> bytes | None:
    """The next line; None for one longer than `MAX_LINE`, of which nothing is kept."""
    data = file.readline(MAX_LINE + 1)
    if len(data) <= MAX_LINE:
        return data
    while data and not data.endswith(b"\n"):
        data = file.readline(_PIECE)
    return None


def is_too_long(line: bytes) -> bool:
    """Whether `read_line` would have passed over a line, given without its line feed."""
    return len(line) >= MAX_LINE


class UnclosedQuote(Exception):
    """A record runs over too many lines."""


class LongLine(Exception):
    """A line is longer than `MAX_LINE`."""


def _sample(lines: Lines, path: Path) -> list[str]:
    """The first lines that are not blank, left in place."""
    try:
        sample = [line for line in lines.ahead(SAMPLE) if line.strip()]
    except LongLine as error:
        raise DataError(
            f"the header is longer than {MAX_LINE >> 20} MiB",
            "This is not a manifest, or its line ends are lost. Write one row per line.",
            path=path,
        ) from error
    header = sample[0] if sample else ""
    if header.startswith(("\udcff\udcfe", "\udcfe\udcff")) or "\0" in header:
        raise DataError(
            "the file is not UTF-8 text (UTF-16?)",
            "Save it as UTF-8, or say what it is: --encoding utf-16",
            path=path,
        )
    return sample


def _is_spaced(header: str, mark: str) -> bool:
    cells = header.split(mark)[1:]
    return bool(cells) and all(cell.startswith(" ") for cell in cells)


class _Records:
    """The cells of each record that is not blank, or why it can't be read.

    width: the number of columns, once the header is known. header: the columns' names if lines may
    be taken in runs, as a `dict` of columns. spaced: a space follows each mark.
    """

    def __init__(self, lines: Lines, mark: str, spaced: bool) -> None:
        self._lines, self._mark = lines, mark
        self._reader = csv.reader(lines, delimiter=mark, strict=True, skipinitialspace=spaced)
        self._pieces: deque[list[str]] = deque()
        self.width, self.header = 0, []
        self._in_runs = len(mark.encode()) == 1 and not spaced

    def __iter__(self) -> Iterator[list[str] | str | dict[str, Any]]:
        while True:
            while self.header and (lines := self._lines.run(self._mark, self.width)):
                if columns := table(lines, self.header, self._mark):
                    yield columns
            self._lines.mark()
            try:
                record = self._next()
            except StopIteration:
                return
            if record:
                yield record
            while self._pieces:
                yield self._pieces.popleft()

    def take_runs(self, header: list[str]) -> None:
        """From here on give lines in runs, if they can be taken so."""
        if self._in_runs and len(header) > 1:
            self.header = header

    def _next(self) -> list[str] | str:
        limit = csv.field_size_limit(MAX_LINE)
        try:
            record = next(self._reader)
        except LongLine:
            return TOO_LONG
        except (UnclosedQuote, csv.Error) as error:
            return self._of_first(self._lines.back(), error)
        finally:
            csv.field_size_limit(limit)
        taken = self._lines.taken
        if len(taken) > 1 and (
            swallows_rows(taken, self._mark, self.width)
            or (len(record) != self.width and _has_rows(taken, self._mark, self.width))
        ):
            first = self._lines.back()
            return first.rstrip("\r\n").split("\t") if self._mark == "\t" else _SWALLOWS
        return record

    def _of_first(self, line: str, error: Exception) -> list[str] | str:
        """The cells of a line whose quotes are wrong, or why there are none."""
        if "\r" in line.rstrip("\r\n") and isinstance(error, csv.Error):
            pieces = [plain_cells(piece, self._mark) for piece in line.rstrip("\r\n").split("\r")]
            if self.width and all(len(cells) == self.width for cells in pieces):
                self._pieces.extend(pieces[1:])
                return pieces[0]
        if '\\"' in line:
            cells = escaped_cells(line, self._mark)
            if self.width and len(cells) == self.width:
                return cells
        if self._mark == "\t":
            return line.rstrip("\r\n").split("\t")
        if isinstance(error, UnclosedQuote) or "unexpected end" in str(error):
            return _NEVER_CLOSED
        if "new-line" in str(error):
            return "there is a carriage return inside the row"
        return "the quotes are wrong: a quoted cell goes on after its closing quote"


def _has_rows(lines: list[str], mark: str, width: int) -> bool:
    return width > 1 and any(len(plain_cells(line, mark)) == width for line in lines[1:])


def _token_rows(lines: Lines, path: Path) -> Iterator[Row | Rejected]:
    number = 0
    while True:
        lines.mark()
        try:
            line = next(lines)
        except StopIteration:
            return
        except LongLine:
            line = None
        if line is not None and not line.strip():
            continue
        number += 1
        cells = None if line is None else token_cells(line)
        if line is None or cells is None or _not_utf8([line]):
            reason = (
                "the line is not UTF-8"
                if line and cells
                else "the line is not NAME#NUMBER, a tab, and a caption"
            )
            yield Rejected(str(path), number, "", TOO_LONG if line is None else reason)
        else:
            yield Row(str(path), number, dict(zip(("image", "number", "text"), cells, strict=True)))


def _table_rows(
    records: _Records, path: Path, encoding: str | None
) -> Iterator[Row | Rejected | Block]:
    of_table = iter(records)
    names = next(of_table, "")
    assert not isinstance(names, dict)  # runs are taken from the header on
    header = _header(names, path)
    records.width = len(header)
    doubles = {name for name, count in Counter(filter(None, header)).items() if count > 1}
    first = next(of_table, None)
    if doubles and first is None:
        shown = ", ".join(map(repr, map(short, sorted(doubles)[:20])))
        raise DataError(f"the header names {shown} twice", path=path)
    if not doubles and all(header):
        records.take_runs(header)
    number = 0
    for record in () if first is None else chain([first], of_table):
        number += 1
        if isinstance(record, dict):
            block = Block(str(path), number, record)
            number += len(block) - 1
            yield block
            continue
        if isinstance(record, str):
            yield Rejected(str(path), number, "", record)
        elif fault := _fault(record, header, encoding):
            yield Rejected(str(path), number, "", fault)
        else:
            yield Row(str(path), number, _values(header, record, doubles))


def _values(header: list[str], record: list[str], doubles: set[str]) -> dict[str, Any]:
    """The cells by column. Those of one name that differ are a fault, if the column is used."""
    cells = zip(header, record, strict=False)
    if not doubles and all(header):
        return dict(cells)
    values: dict[str, Any] = {}
    for name, cell in cells:
        if name in doubles and values.get(name, cell) != cell:
            values[name] = Fault(f"the header names {short(name)!r} twice, with different cells")
        elif name:
            values[name] = cell
    return values


def _header(record: list[str] | str, path: Path) -> list[str]:
    if not record:
        raise DataError("the file is empty", "Its first line must name the columns.", path=path)
    if isinstance(record, str):
        raise DataError(f"the header can't be read: {record}", path=path)
    header = [cell.strip() for cell in record]
    while header and not header[-1]:
        header.pop()
    if _not_utf8(header):
        hint = "Save the file as UTF-8, or name its encoding, such as --encoding cp1252"
        raise DataError("the header is not UTF-8", hint, path=path)
    for cell in header:
        if is_media_name(cell) and _is_file(path.parent / cell):
            raise DataError(
                f"the first line is not a header: it names the file {short(cell)}",
                "Write a first line that names the columns, such as image,text",
                path=path,
            )
    return header


def _is_file(path: Path) -> bool:
    try:
        return len(str(path)) <= MAX_PATH and os.path.isfile(path)
    except (OSError, ValueError):
        return False


def _fault(record: list[str], header: list[str], encoding: str | None) -> str:
    """Why a record can't be used, or ""."""
    if len(record) < len(header) or any(record[len(header) :]):
        return f"the row has {len(record)} cells, the header {len(header)}"
    if _not_utf8(record):
        if encoding:
            return f"the row is not {encoding}"
        return "the row is not UTF-8; save the file as UTF-8, or say --encoding"
    return "the row contains a NUL byte" if any("\0" in cell for cell in record) else ""


def _not_utf8(cells: list[str]) -> bool:
    return any(
        not cell.isascii() and any("\ud800" <= c <= "\udfff" for c in cell) for cell in cells
    )
