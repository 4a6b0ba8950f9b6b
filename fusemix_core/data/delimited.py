"""CSV and TSV manifests."""

from __future__ import annotations

import csv
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fusemix_core.data.dataset import Rejected
from fusemix_core.data.rows import Row
from fusemix_core.errors import DataError, short

MAX_LINE = 64 << 20
"""Bytes. A line longer than this is no row of a manifest."""
MAX_LINES = 200
"""A quoted cell may run over this many lines, and be as long as one line may be; more is a quote
that is never closed."""
TOO_LONG = f"the line is longer than {MAX_LINE >> 20} MiB; write one row a line"
_PIECE = 1 << 20


class DelimitedReader:
    """`.csv` and `.tsv`, UTF-8 (with or without BOM), first line the header.

    Cells are quoted as in RFC 4180. A `.csv` without a comma in its header may use semicolons or
    tabs. In a `.tsv`, a line that is not quoted properly is split at its tabs.
    """

    def matches(self, path: Path) -> bool:
        return path.is_file() and path.suffix.lower() in (".csv", ".tsv")

    def rows(self, path: Path) -> Iterator[Row | Rejected]:
        with open(path, "rb") as file:
            lines = Lines(file)
            delimiter = _delimiter(lines, path)
            records = _records(lines, delimiter)
            header = _header(next(records, ""), path)
            for number, record in enumerate(records, start=1):
                fault = record if isinstance(record, str) else _fault(record, header)
                if fault:
                    yield Rejected(str(path), number, "", fault)
                else:
                    yield Row(str(path), number, dict(zip(header, record, strict=False)))


class Lines:
    """The lines of a file as str, with bytes that are not UTF-8 kept as surrogates.

    Lines since `mark` are kept, so that `back` can return to the second of them. A line longer than
    `MAX_LINE` is passed over, and told by `LongLine` in its place.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ahead: deque[str | None] = deque()
        self._read = 0
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
        self._read += 1
        if data is None:
            return None
        if self._read == 1:
            data = data.removeprefix(b"\xef\xbb\xbf")
        return data.decode("utf-8", "surrogateescape")

    def peek(self) -> str | None:
        """The next line, left in place; "" at the end, None for one that is too long."""
        if not self._ahead:
            try:
                self._ahead.append(self._next_line())
            except StopIteration:
                return ""
        return self._ahead[0]

    def mark(self) -> None:
        self.taken: list[str] = []
        self._length = 0

    def back(self) -> str:
        """Give back all lines since `mark` but the first, which is returned."""
        first, *rest = self.taken
        self._ahead.extendleft(reversed(rest))
        self.mark()
        return first


def read_line(file: BinaryIO) -> bytes | None:
    """The next line; None for one longer than `MAX_LINE`, of which nothing is kept."""
    data = file.readline(MAX_LINE + 1)
    if len(data) <= MAX_LINE:
        return data
    while data and not data.endswith(b"\n"):
        data = file.readline(_PIECE)
    return None


class UnclosedQuote(Exception):
    """A record runs over too many lines."""


class LongLine(Exception):
    """A line is longer than `MAX_LINE`."""


def _delimiter(lines: Lines, path: Path) -> str:
    header = lines.peek()
    if header is None:
        raise DataError(
            f"the header is longer than {MAX_LINE >> 20} MiB",
            "This is no manifest, or its line ends are lost. Write one row a line.",
            path=path,
        )
    if header.startswith(("\udcff\udcfe", "\udcfe\udcff")) or "\0" in header:
        raise DataError("the file is not UTF-8 text (UTF-16?)", "Save it as UTF-8.", path=path)
    if path.suffix.lower() == ".tsv":
        return "\t"
    return next((mark for mark in ",;\t" if mark in header), ",")


def _records(lines: Lines, delimiter: str) -> Iterator[list[str] | str]:
    """The cells of each record that is not blank, or why it can't be read."""
    limit = csv.field_size_limit()
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.mark()
        csv.field_size_limit(MAX_LINE)
        try:
            record: list[str] | str = next(reader)
        except StopIteration:
            return
        except LongLine:
            record = TOO_LONG
        except (UnclosedQuote, csv.Error) as error:
            first = lines.back()
            record = _unquoted(first) if delimiter == "\t" else _say(error)
        finally:
            csv.field_size_limit(limit)
        if record:
            yield record


def _unquoted(line: str) -> list[str]:
    return line.rstrip("\r\n").split("\t")


def _say(error: Exception) -> str:
    if isinstance(error, UnclosedQuote) or "unexpected end" in str(error):
        return "a quote is opened and never closed"
    return f"the quotes are wrong ({error})"


def _header(record: list[str] | str, path: Path) -> list[str]:
    if not record:
        raise DataError("the file is empty", "Its first line must name the columns.", path=path)
    if isinstance(record, str):
        raise DataError(f"the header can't be read: {record}", path=path)
    header = [cell.strip() for cell in record]
    while header and not header[-1]:
        header.pop()
    if _not_utf8(header):
        raise DataError("the header is not UTF-8", "Save the file as UTF-8.", path=path)
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        shown = ", ".join(map(repr, map(short, twice[:20])))
        raise DataError(f"the header names {shown} twice", path=path)
    return header


def _fault(record: list[str], header: list[str]) -> str:
    """Why a record can't be used, or ""."""
    if len(record) < len(header) or any(record[len(header) :]):
        return f"the row has {len(record)} cells, the header {len(header)}"
    if _not_utf8(record):
        return "the row is not UTF-8; save the file as UTF-8"
    return "the row holds a NUL byte" if any("\0" in cell for cell in record) else ""


def _not_utf8(cells: list[str]) -> bool:
    return any(
        not cell.isascii() and any("\ud800" <= c <= "\udfff" for c in cell) for cell in cells
    )
