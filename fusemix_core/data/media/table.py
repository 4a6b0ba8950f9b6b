"""The medium `table`: the cells of a row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import date, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from fusemix_core.data.media.base import Medium, kind
from fusemix_core.data.media.limits import MAX_TEXT
from fusemix_core.data.media.text import normalise_text
from fusemix_core.errors import DataError, short

if TYPE_CHECKING:
    import pyarrow as pa

    from fusemix_core.specs import EncoderSpec

Cell = str | int | float | bool
_PLAIN = (str, int, float, bool)
_CONSTANTS = {"NaN": None, "Infinity": "inf", "-Infinity": "-inf"}
"""Python's own words for numbers that JSON doesn't have."""
_AS_IT_IS = r"^[!#-\[\]-~]([ !#-\[\]-~]*[!#-\[\]-~])?$"
"""ASCII that JSON writes without escapes, and that has no space at either end."""


class TableMedium(Medium):
    """A row's cells, column → value → dict of the filled ones: str, int, float or bool.

    An item is known by its JSON, columns sorted, so equal rows are one item.

    Example:
        medium("table").cell({"sex": "f", "age": 61, "bmi": None})  # '{"age":61,"sex":"f"}'
    """

    name = "table"
    inline = True
    joined = True
    leftover = True
    costly = False
    batch = (1024, 4096)

    def decode(self, value: Any, sample_rate: int | None = None) -> dict[str, Cell]:
        if isinstance(value, str):
            if len(value) > MAX_TEXT:
                raise DataError(f"the row is larger than {MAX_TEXT >> 20} MiB")
            try:
                value = json.loads(value, parse_constant=_CONSTANTS.get)
            except (ValueError, RecursionError) as error:
                raise DataError(f"the row is not JSON: {short(str(error))}") from error
            if isinstance(value, dict) and all(type(one) in _PLAIN for one in value.values()):
                return value
        if not isinstance(value, Mapping):
            raise DataError(
                f"a row is column → value, not {kind(value)}",
                'Give a dict or its JSON: {"age": 61, "sex": "f"}',
            )
        return dict(_cells(value))

    def cell(self, value: Any) -> str:
        cells = self.decode(value)
        if not cells:
            return ""
        text = json.dumps(cells, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError("a cell contains half a surrogate pair") from error
        return text

    def join(self, columns: Mapping[str, pa.Array]) -> pa.Array | None:
        import pyarrow as pa
        import pyarrow.compute as pc

        written = [_written(name, columns[name]) for name in sorted(columns)]
        parts = [part for part in written if part is not None]
        if not parts or len(parts) < len(written):
            return None
        # The first part is there for Arrow, which loses a row whose parts are all null.
        first = pa.repeat("", len(parts[0]))
        cells = pc.binary_join_element_wise(first, *parts, ",", null_handling="skip")
        whole = pc.binary_join_element_wise("{", pc.utf8_slice_codeunits(cells, 1), "}", "")
        return pc.if_else(pc.equal(cells, ""), pa.scalar(None, pa.string()), whole)

    def samples(self, spec: EncoderSpec) -> list[dict[str, Cell]]:
        return [dict(_cells(one)) for one in self.cells()]

    def cells(self) -> list[dict[str, Any]]:
        sexes, cities = "fmfm", ("Oslo", "Rome", "Oslo", "東京")
        rows: list[dict[str, Any]] = [
            {
                "age": 30 + 3 * i,
                "bmi": 20.5 + 1.25 * i,
                "sex": sexes[i % 4],
                "smoker": i % 3 == 0,
                "city": cities[i % 4],
                "seen": f"2024-0{1 + i % 9}-1{i % 9}",
            }
            for i in range(10)
        ]
        rows[3]["bmi"] = None
        del rows[4]["city"]
        return rows

    def edges(self, spec: EncoderSpec) -> dict[str, dict[str, Cell]]:
        ordinary = dict(_cells(self.cells()[0]))
        return {
            "one cell": {"age": 40},
            "an unknown column": {**ordinary, "shoe size": 44},
            "an unseen class": {**ordinary, "city": "Nowhere"},
            "text where numbers were": {**ordinary, "age": "unknown"},
            "an endless number": {**ordinary, "bmi": "inf"},
            "a huge number": {**ordinary, "bmi": 1e300},
            "a whole number of many digits": {**ordinary, "age": 10**200},
            "a date that is none": {**ordinary, "seen": "2024-99-99"},
            "a long text": {**ordinary, "city": "word " * 2_000},
        }

    def wrong(self) -> list[Any]:
        return ["no JSON", "[1, 2]", [{"a": 1}]]


def _cells(row: Mapping[str, Any]) -> Iterator[tuple[str, Cell]]:
    """(column, value) of the filled cells. The cells of a table in a cell come by their own names
    if nothing is beside it, else as `column.name`."""
    for column, value in row.items():
        if isinstance(value, Mapping):
            prefix = f"{column}." if len(row) > 1 else ""
            for name, inner in value.items():
                if (cell := _cell(f"{prefix}{name}", inner)) is not None:
                    yield f"{prefix}{name}", cell
        elif (cell := _cell(str(column), value)) is not None:
            yield str(column), cell


def _cell(column: str, value: Any) -> Cell | None:
    """A cell in its plain form; None if it is empty. Raises `DataError`."""
    if isinstance(value, str):
        return normalise_text(value) or None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return None if math.isnan(value) else str(float(value))
    if isinstance(value, Decimal):
        return None if value.is_nan() else str(value)
    if isinstance(value, date | time):
        return value.isoformat() if value == value else None  # pandas.NaT is not
    if hasattr(value, "tolist") and not isinstance(plain := value.tolist(), list):  # of NumPy
        return _cell(column, plain)
    raise DataError(f"the column '{short(column)}' contains {kind(value)}")


def _written(name: str, column: pa.Array) -> pa.Array | None:
    """The cells of a column as parts of JSON, `"name":value`, null for empty ones; None if they
    need `cell`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    start = f"{json.dumps(name, ensure_ascii=False)}:"
    if pa.types.is_string(column.type):
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
        if pc.all(pc.match_substring_regex(column, _AS_IT_IS), min_count=0).as_py():
            return pc.binary_join_element_wise(f'{start}"', column, '"', "")
        column = column.dictionary_encode()
        return _each(name, start, column.dictionary).take(column.indices)
    kinds = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_null)
    return _each(name, start, column) if any(is_kind(column.type) for is_kind in kinds) else None


def _each(name: str, start: str, values: pa.Array) -> pa.Array:
    import pyarrow as pa

    cells = [_cell(name, value) for value in values.to_pylist()]
    texts = [None if c is None else start + json.dumps(c, ensure_ascii=False) for c in cells]
    return pa.array(texts, pa.string())
