"""Finds out how a table in a text file is written: which mark separates its cells."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

from fusemix_core.data.rows import MAX_PATH
from fusemix_core.data.suffixes import modality_of_suffix
from fusemix_core.errors import ConfigError

MARKS = (",", "\t", ";", "|", "^", "~", "\x1f", "\x01")
"""What may separate cells, the likelier first."""
SAMPLE = 50
"""Lines that are looked at."""
NAMES = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "pipe"}
_SEP = re.compile(r"\"?sep=(.)\"?[,;\t]*\s*", re.IGNORECASE)
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,4}")
_TOKEN = re.compile(r"([^\t]{1,4000}\.[A-Za-z0-9]{1,5})#(\d{1,4})\t(.*\S.*)", re.DOTALL)


def check_delimiter(given: str) -> str:
    """The mark that a user names: one character, or `tab`, `comma`, `semicolon`, `pipe`.

    Raises:
        ConfigError: it is longer than a character, or a quote or line end.
    """
    named = {name: mark for mark, name in NAMES.items()} | {"\\t": "\t"}
    mark = named.get(given.lower(), given)
    if len(mark) != 1 or mark in '"\r\n\0':
        raise ConfigError(
            f"The delimiter {given!r} is not one character.",
            "Examples: --delimiter ';'  --delimiter tab  --delimiter pipe",
        )
    return mark


def told_mark(line: str) -> str | None:
    """The mark that a first line `sep=;` names, as spreadsheets write it."""
    match = _SEP.fullmatch(line)
    return match[1] if match else None


def find_mark(lines: Sequence[str], suffix: str) -> str:
    """The mark that separates the cells of a table.

    It is the one that splits the most lines into as many cells as the header, then the one that
    gives more cells, then the one that is usual for the file's suffix.

    Args:
        lines: the header and some lines that follow it.
        suffix: of the file, such as `.tsv`.
    """
    usual = {".tsv": "\t", ".tab": "\t", ".txt": "\t", ".psv": "|"}.get(suffix, ",")
    order = [usual, *(mark for mark in MARKS if mark != usual)]
    best, choice = (0.0, 0), usual
    for mark in order:
        width = len(_filled(plain_cells(lines[0], mark))) if lines and mark in lines[0] else 0
        if width < 2:
            continue
        body = [plain_cells(line, mark) for line in lines[1:] if line.strip()]
        fits = sum(len(cells) >= width and not any(cells[width:]) for cells in body)
        score = (fits / len(body) if body else 1.0, width)
        if score > best:
            best, choice = score, mark
    return choice


def plain_cells(line: str, mark: str) -> list[str]:
    """The cells of one line by itself, whatever its quotes."""
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=mark), [])
    except csv.Error:
        return line.rstrip("\r\n").split(mark)


def escaped_cells(line: str, mark: str) -> list[str]:
    """The cells of one line with quotes escaped by backslashes, as databases write them; [] if it
    isn't written so."""
    try:
        lines = [line.rstrip("\r\n")]
        reader = csv.reader(lines, delimiter=mark, escapechar="\\", doublequote=False, strict=True)
        return next(reader, [])
    except csv.Error:
        return []


def _filled(cells: list[str]) -> list[str]:
    while cells and not cells[-1].strip():
        cells.pop()
    return cells


def swallows_rows(lines: Sequence[str], mark: str, width: int) -> bool:
    """Whether a quoted cell that runs over several lines has taken rows of the table with it.

    A line inside it is a row if it splits into as many cells as the header has and looks like the
    first line: with a file name, if that has one, else with no space before a cell.

    Args:
        lines: all lines of the record.
        width: the number of columns.
    """
    if width < 2:
        return False
    suffixes = {s for cell in lines[0].split(mark) if (s := _suffix(cell))}
    for line in lines[1:]:
        cells = plain_cells(line, mark)
        if len(cells) != width:
            continue
        if suffixes:
            found = {s for cell in cells if (s := _suffix(cell))}
            if found & suffixes or (found and found | suffixes <= modality_of_suffix().keys()):
                return True
        elif not any(cell[:1].isspace() for cell in cells[1:]):
            return True
    return False


def _suffix(cell: str) -> str:
    """The suffix of a cell that looks like a file's name, or ""."""
    cell = cell.strip().strip('"')
    at = cell.rfind(".")
    suffix = cell[at:].lower() if at > 0 else ""
    return suffix if _SUFFIX.fullmatch(suffix) and len(cell) <= MAX_PATH else ""


def is_media_name(cell: str) -> bool:
    """Whether a cell looks like the name of an image, sound or video."""
    return _suffix(cell) in modality_of_suffix()


def token_cells(line: str) -> tuple[str, str, str] | None:
    """(image, number, caption) of a line as Flickr8k's `.token` files have it: `a.jpg#0<tab>…`."""
    match = _TOKEN.fullmatch(line.rstrip("\r\n"))
    return (match[1], match[2], match[3]) if match else None
