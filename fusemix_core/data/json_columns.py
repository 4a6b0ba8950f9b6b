"""Lines of JSON as columns, where each line is surely one flat object."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemix_core.data.arrow_texts import text_array
from fusemix_core.data.runs import is_utf8

if TYPE_CHECKING:
    import pyarrow as pa

_LINE, _RETURN, _OPEN, _CLOSE, _QUOTE = b'\n\r{}"'
_MOST_FAILURES = 8
"""Pieces that are tried in vain; then the file is left to Python."""


class JsonColumns:
    """Reads pieces of one file with Arrow, which is several times as fast as Python's JSON.

    Arrow must know what the columns hold. That is learned from the objects that Python read before;
    a piece in which anything else occurs is Python's.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, type | None] = {}
        self._failures = 0

    def learn(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Look at objects that Python read."""
        if self._failures >= _MOST_FAILURES:
            return
        seen = {(name, type(value)) for one in objects for name, value in one.items()}
        for name, kind in seen:
            known = self._kinds.get(name)
            if kind is type(None):
                self._kinds.setdefault(name, None)
            elif kind not in (str, bool, int, float) or known not in (None, kind):
                number = {known, kind} == {int, float}
                self._kinds[name] = float if number else kind
                self._failures = self._failures if number else _MOST_FAILURES
            else:
                self._kinds[name] = kind

    def read(self, lines: bytes) -> dict[str, pa.Array]:
        """The columns of whole lines, a row per line; none if they are for Python to read."""
        if not lines or not self._kinds or self._failures >= _MOST_FAILURES:
            return {}
        lines += b"" if lines.endswith(b"\n") else b"\n"
        if b"\0" in lines or not (lines.isascii() or is_utf8(lines)):
            return {}
        found = _alike(lines) or (self._columns(lines) if _an_object_each(lines) else {})
        self._failures += not found
        return found

    def _columns(self, lines: bytes) -> dict[str, pa.Array]:
        import pyarrow as pa
        import pyarrow.json as pa_json

        kinds = {None: pa.string(), str: pa.string(), bool: pa.bool_(), int: pa.int64(),
                 float: pa.float64()}  # fmt: skip
        schema = pa.schema([(name, kinds[kind]) for name, kind in self._kinds.items()])
        read = pa_json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
        parse = pa_json.ParseOptions(schema, False, "error")
        try:
            table = pa_json.read_json(pa.BufferReader(lines), read, parse)
            if b"\\" in lines:  # half a surrogate pair may be escaped
                table.validate(full=True)
        except (pa.ArrowException, ValueError):
            return {}
        columns = {name: table.column(name).combine_chunks() for name in self._kinds}
        if table.num_rows != lines.count(b"\n"):
            return {}
        return {} if any(_may_be_whole(one) for one in columns.values()) else columns


def _alike(lines: bytes) -> dict[str, pa.Array]:
    """The columns of objects that have nothing but texts without escapes, and are the same but for
    these; none if there is anything else.

    As the first line is an object of `k` texts, and all lines have its bytes outside of them, they
    are such objects too.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        first = json.loads(lines[: lines.index(b"\n")])
    except (ValueError, RecursionError):
        return {}
    held = np.frombuffer(lines, np.uint8)
    marks = np.flatnonzero((held == _QUOTE) | (held < 32))
    count = lines.count(b"\n")
    if (
        b"\\" in lines
        or not isinstance(first, dict)
        or not all(isinstance(text, str) for text in first.values())
        or len(marks) != count * (4 * len(first) + 1)
    ):
        return {}
    marks = marks.reshape(count, -1)
    if not first or (held[marks] != [_QUOTE] * 4 * len(first) + [_LINE]).any():
        return {}
    cuts = np.empty((count, 1 + 2 * len(first)), np.int32)  # where a line and its texts begin, end
    cuts[:, 0], cuts[1:, 0] = 0, marks[:-1, -1] + 1
    cuts[:, 1::2], cuts[:, 2::2] = marks[:, 2:-1:4] + 1, marks[:, 3:-1:4]
    parts = text_array(np.append(cuts, len(lines)).astype(np.int32), held)
    for at in range(0, cuts.shape[1], 2):
        between = parts.take(pa.array(np.arange(at, cuts.size, cuts.shape[1])))
        if not pc.all(pc.equal(between, between[0])).as_py():
            return {}
    at = np.arange(1, cuts.size, cuts.shape[1])
    return {name: parts.take(pa.array(at + 2 * i)) for i, name in enumerate(first)}


def _an_object_each(lines: bytes) -> bool:
    """Whether each line begins and ends as an object does. JSON that does can't be broken in
    between, so that as many objects as lines are one a line."""
    held = np.frombuffer(lines, np.uint8)
    ends = np.flatnonzero(held == _LINE)
    starts = np.concatenate([[0], ends[:-1] + 1])
    last = held[ends - 1]
    if (ends - starts < 2).any():
        return False
    last = np.where(last == _RETURN, held[ends - 2], last)
    return bool((held[starts] == _OPEN).all() and (last == _CLOSE).all())


def _may_be_whole(column: pa.Array) -> bool:
    """Whether a number among decimal ones may have been written as a whole one, which it then is
    in Python."""
    import pyarrow as pa

    if not pa.types.is_floating(column.type):
        return False
    values = column.drop_null().to_numpy(zero_copy_only=False)
    return bool((~np.isfinite(values) | (values == np.floor(values))).any())
