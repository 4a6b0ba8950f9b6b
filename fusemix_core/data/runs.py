"""A text file by lines, of which those that are surely one row each can be taken many at a time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

_PIECE = 1 << 20
FROM = 1 << 20
"""Bytes of a file that are given line by line: small ones need no faster way."""
FEWEST = 16
"""Lines that are worth being taken together."""
_QUOTE, _LINE, _RETURN, _NUL = b'"\n\r\0'
_BOM = b"\xef\xbb\xbf"


class Runs:
    """The lines of a file, one by one (`readline`) or in runs."""

    def __init__(self, file: BinaryIO | io.BufferedIOBase) -> None:
        self._file, self._data, self._at, self._ended = file, b"", 0, False
        self._before = 0  # bytes that were let go of
        self._form: tuple[str, int] | None = None
        self._starts = self._regular = np.zeros(0, np.int64)

    def readline(self, size: int) -> bytes:
        """The next line, or as much of it as has `size` bytes; b"" at the end."""
        while True:
            end = self._data.find(b"\n", self._at, self._at + size) + 1
            if not end and not self._ended and len(self._data) - self._at < size:
                self._fill()
                continue
            end = min(end or len(self._data), self._at + size)
            line, self._at = self._data[self._at : end], end
            return line

    def whole_lines(self) -> bytes:
        """All lines that are whole and at hand, two megabytes or so; b"" if the next is longer, or
        one of the first."""
        if self._before + self._at < FROM:
            return b""
        if self._data.find(b"\n", self._at) < 0 and not self._ended:
            self._fill()
        end = len(self._data) if self._ended else self._data.rfind(b"\n", self._at) + 1
        lines, self._at = self._data[self._at : max(end, self._at)], max(end, self._at)
        return lines

    def run(self, mark: str, width: int, longest: int) -> bytes:
        """The next lines if many of them have `width` cells each, separated by `mark`, no more than
        `longest` bytes, and nothing that could be read in another way; else b"". None of the first
        come so."""
        if self._before + self._at < FROM:
            return b""
        if self._form != (mark, width) or self._at >= self._end:
            if self._data.find(b"\n", self._at) < 0 and not self._ended:
                self._fill()
            self._form = (mark, width)
            self._look(mark, width, longest)
        first = int(np.searchsorted(self._starts, self._at))
        if first >= len(self._regular) or self._starts[first] != self._at:
            return b""
        breaks = np.searchsorted(self._breaks, first)
        last = int(self._breaks[breaks]) if breaks < len(self._breaks) else len(self._regular)
        if last - first < FEWEST:
            return b""
        end = int(self._starts[last])
        lines, self._at = self._data[self._at : end], end
        return lines

    def _fill(self) -> None:
        piece = self._file.read(_PIECE)
        self._ended = not piece
        self._before += self._at
        self._data, self._at = self._data[self._at :] + piece, 0
        self._form = None

    def _look(self, mark: str, width: int, longest: int) -> None:
        """Find out which of the whole lines at hand are regular."""
        self._end = self._data.rfind(b"\n", self._at) + 1
        part = self._data[self._at : self._end]
        ends = np.flatnonzero(np.frombuffer(part, np.uint8) == _LINE)
        self._regular = regular_lines(part, ends, ord(mark), width)
        self._regular &= np.diff(ends, prepend=-1) <= longest
        self._breaks = np.flatnonzero(~self._regular)
        self._starts = np.concatenate([[0], ends + 1]) + self._at


def regular_lines(data: bytes, ends: np.ndarray, mark: int, width: int) -> np.ndarray:
    """bool: which lines of a table are one row of `width` cells whatever is before them.

    Each quote opens a cell, closes it or is doubled inside, each carriage return is part of the
    line's end, and the bytes are UTF-8 without NUL. A blank line is regular, too.

    Args:
        data: whole lines.
        ends: int64, where the line feeds are.
        mark: what separates cells, one byte.
        width: of the header, 2 or more.
    """
    if not len(ends):
        return np.zeros(0, bool)
    held = np.frombuffer(data, np.uint8)
    starts = np.concatenate([[0], ends[:-1] + 1])
    special = held <= _RETURN  # line feeds and carriage returns, and little else
    special |= held == mark
    special |= held == _QUOTE
    at = np.flatnonzero(special)
    what = held[at]
    last = np.flatnonzero(what == _LINE)  # of each line, in `at`
    is_mark, good = what == mark, np.ones(len(ends), bool)
    if _QUOTE in data:
        quote = what == _QUOTE
        even, inside = _quoted(quote, last)
        good &= even
        is_mark &= ~inside
        opens, place = inside[quote], at[quote]
        beside = held[np.where(opens, np.maximum(place - 1, 0), place + 1)]
        fits = (beside == mark) | (beside == _QUOTE) | (beside == _LINE) | (place == 0)
        fits |= ~opens & (beside == _RETURN)
        good[np.searchsorted(ends, place[~fits])] = False
    marks = np.diff(np.cumsum(is_mark, dtype=np.int32)[last], prepend=0)
    length = ends - starts
    good &= (marks == width - 1) | (length == 0) | ((length == 1) & (held[starts] == _RETURN))
    returns = at[what == _RETURN]
    good[np.searchsorted(ends, returns[held[returns + 1] != _LINE])] = False
    if b"\0" in data:
        good[np.searchsorted(ends, np.flatnonzero(held == _NUL))] = False
    if not data.isascii():
        if _BOM in data:
            good[[data.startswith(_BOM, start) for start in starts.tolist()]] = False
        if not is_utf8(data):
            for i in np.unique(np.searchsorted(ends, np.flatnonzero(held >= 128))):
                good[i] &= is_utf8(data[starts[i] : ends[i]])
    return good


def _quoted(quote: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bool `[lines]`: which lines have an even number of quotes; bool `[n]`: which characters have
    an odd number of them before and at their place in the line).

    Args:
        quote: bool `[n]`, which characters are quotes.
        last: int64 `[lines]`, the last character of each line.
    """
    so_far = np.cumsum(quote, dtype=np.int32)
    until = so_far[last]
    even = np.diff(until, prepend=0) & 1 == 0
    if not even.all():
        before = np.concatenate([[0], until[:-1]])
        so_far = so_far - np.repeat(before, np.diff(last, prepend=-1))
    return even, so_far & 1 == 1


def is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def table(lines: bytes, header: Sequence[str], mark: str) -> dict[str, pa.Array]:
    """The columns of regular lines, as Arrow arrays of strings; none if all lines are blank."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    read = pa_csv.ReadOptions(
        use_threads=False, block_size=len(lines) + 1, column_names=list(header)
    )
    parse = pa_csv.ParseOptions(delimiter=mark, newlines_in_values=False)
    convert = pa_csv.ConvertOptions(
        check_utf8=False, column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
    )
    found = pa_csv.read_csv(pa.BufferReader(lines), read, parse, convert)
    return {name: found.column(name).combine_chunks() for name in header} if found.num_rows else {}
