"""JSON manifests: an object per line, or lists of objects, whatever the suffix says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusemix_core.data.dataset import Rejected
from fusemix_core.data.delimited import TOO_LONG, is_too_long, read_line, table_suffix
from fusemix_core.data.documents import document_rows
from fusemix_core.data.json_columns import JsonColumns
from fusemix_core.data.opening import open_text
from fusemix_core.data.rows import Block, Note, Reader, Row, one_by_one
from fusemix_core.data.runs import Runs
from fusemix_core.errors import DataError

MAX_JSON = 256 << 20
"""Bytes. A document is read as a whole, and takes several times its size in memory."""
_FIRST = 1 << 20
"""Bytes of a first line that is looked at."""
# pyrefly: ignore[missing-attribute]  # typeshed lacks it
_SCAN = json.JSONDecoder().scan_once
_BRACKETS = (b"[", b"]", b",", b"],")


class JsonLinesReader(Reader):
    """`.jsonl` and `.ndjson`, also in gzip: an object per line.

    A comma after an object does no harm. A file that holds one list, or objects that take several
    lines each, is read as `JsonReader` reads it.

    Args:
        encoding: None is UTF-8.
    """

    suffixes: tuple[str, ...] = (".jsonl", ".ndjson")

    def __init__(self, *, encoding: str | None = None) -> None:
        self.encoding = encoding

    def matches(self, path: Path) -> bool:
        return path.is_file() and table_suffix(path) in self.suffixes

    def rows(self, path: Path) -> Iterator[Row | Rejected | Note]:
        return one_by_one(self.blocks(path))

    def blocks(self, path: Path) -> Iterator[Row | Rejected | Note | Block]:
        if self._is_document(path):
            content = parse_document(self._read(path))
            if not isinstance(content, str):
                yield from document_rows(content, path)
                return
        yield from self._lines(path)

    def _is_document(self, path: Path) -> bool:
        """Whether the first line is not an object by itself, so that the file may be one list."""
        with open_text(path, self.encoding) as file:
            while line := file.readline(_FIRST):
                if line.strip():
                    return isinstance(parse_object(line), str)
        return False

    def _read(self, path: Path) -> bytes:
        """The whole file; b"" if it is larger than a document may be."""
        if path.suffix.lower() != ".gz" and path.stat().st_size > MAX_JSON:
            return b""
        with open_text(path, self.encoding) as file:
            data = file.read(MAX_JSON + 1)
        return data if len(data) <= MAX_JSON else b""

    def _lines(self, path: Path) -> Iterator[Row | Rejected | Block]:
        number = 0
        columns = JsonColumns()
        with open_text(path, self.encoding) as file:
            lines = Runs(file)
            while True:
                while block := columns.read(piece := lines.whole_lines()):
                    yield (one := Block(str(path), number + 1, block))
                    number += len(one)
                for values in self._objects(piece):
                    if isinstance(values, list):
                        columns.learn(values)
                        yield Block(str(path), number + 1, values)
                        number += len(values)
                    else:
                        number += 1
                        yield Rejected(str(path), number, "", values)
                line = read_line(lines)  # longer than what is read at once, or the last
                if line == b"":
                    return
                for values in [TOO_LONG] if line is None else self._objects(line):
                    number += 1
                    if isinstance(values, list):
                        columns.learn(values)
                        yield Row(str(path), number, values[0])
                    else:
                        yield Rejected(str(path), number, "", values)

    def _objects(self, data: bytes) -> Iterator[list[dict[str, Any]] | str]:
        """The objects of whole lines, as many as come one after another in one list, and for each
        line without one why there is none."""
        found: list[dict[str, Any]] = []
        for line in data.split(b"\n"):
            values = _object_in(line)
            if values is None:
                if not line.strip() or line.strip() in _BRACKETS:
                    continue
                values = parse_object(line, self.encoding or "UTF-8")
            if is_too_long(line):
                values = TOO_LONG
            if isinstance(values, dict):
                found.append(values)
                continue
            if found:
                yield found
                found = []
            yield values
        if found:
            yield found


class JsonReader(JsonLinesReader):
    """`.json`, also in gzip: a list of objects, or another document that holds pairs.

    These are Karpathy's split files, COCO's captions, one list inside an object, columns as lists
    (as pandas writes them), and a mapping from file names to captions; see `documents`. Commas too
    many at the end of a list do no harm. A file with an object per line is read as `.jsonl`.

    Args:
        encoding: None is UTF-8.
    """

    suffixes = (".json",)

    def blocks(self, path: Path) -> Iterator[Row | Rejected | Note | Block]:
        if not self._is_document(path) and self._has_more(path):
            yield from self._lines(path)
            return
        data = self._read(path)
        if not data and path.stat().st_size:
            raise DataError(
                f"the file is larger than {MAX_JSON >> 20} MiB",
                "Write one object per line, as .jsonl: jq -c '.[]' a.json > a.jsonl",
                path=path,
            )
        content = parse_document(data)
        if isinstance(content, str):
            raise DataError(f"the file is not JSON: {content}", path=path)
        yield from document_rows(content, path)

    def _has_more(self, path: Path) -> bool:
        """Whether more than one line has something in it."""
        filled = 0
        with open_text(path, self.encoding) as file:
            while filled < 2 and (line := file.readline(_FIRST)):
                filled += bool(line.strip())
        return filled > 1


def _object_in(line: bytes) -> dict[str, Any] | None:
    """The JSON object that a line is and nothing else; None where `parse_object` must look."""
    try:
        text = line.decode("utf-8").strip()
        values, end = _SCAN(text, 0)
    except (ValueError, StopIteration, RecursionError):
        return None
    return values if end == len(text) and isinstance(values, dict) else None


def parse_object(data: bytes, encoding: str = "UTF-8") -> dict[str, Any] | str:
    """The JSON object in UTF-8 `data`, or why there is none. A comma may follow it."""
    try:
        text = data.decode("utf-8").strip()
        values = json.loads(text.removesuffix(",") if text.endswith("},") else text)
    except UnicodeDecodeError:
        hint = "; save the file as UTF-8, or say --encoding" if encoding == "UTF-8" else ""
        return f"the row is not {encoding}{hint}"
    except (ValueError, RecursionError) as error:
        return f"the row is not JSON: {error}"
    return values if isinstance(values, dict) else "the row is not a JSON object"


def parse_document(data: bytes) -> Any:
    """The JSON in UTF-8 `data`, or why there is none, as a str.

    Objects one after another are a list of them, and commas too many at the end of a list do no
    harm.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"it is not UTF-8: {error.reason} at byte {error.start:,}"
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        try:
            return _objects_in(text)
        except (ValueError, RecursionError):
            return str(error)
    return f"it is only the text {content!r}" if isinstance(content, str) else content


def _objects_in(text: str) -> list[Any]:
    """The objects of a list that is not quite JSON. Raises ValueError if there is more amiss."""
    decoder, objects = json.JSONDecoder(), []
    start = len(text) - len(text.lstrip())
    in_list = text[start : start + 1] == "["
    at = start + in_list
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if at >= len(text) or (in_list and text[at] == "]"):
            break
        value, at = decoder.raw_decode(text, at)
        if not isinstance(value, dict):
            raise ValueError("not an object")
        objects.append(value)
    if text[at + 1 :].strip() or not objects or (in_list and at >= len(text)):
        raise ValueError("the list does not end")
    return objects
