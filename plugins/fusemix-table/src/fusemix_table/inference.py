"""Which kind a column is of, seen from its training cells, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusemix_core.data.tabular import level, numbers, seconds
from fusemix_table.kinds import NO, YES, Category, Date, Flag, Kind, Number, frequent

MOSTLY = 0.95
"""A column is of numbers, or of dates, if so many of its filled cells are."""
_UNIQUE = 0.9
_VARIED = 0.5
_WORDS, _LENGTH = 4, 40
"""Texts have so many words, or so many characters, on average."""
_FEW = 10
"""With fewer filled cells it means nothing that all differ."""
_NAME = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_ID = frozenset({"id", "ids", "uid", "uuid", "guid", "idx", "index", "identifier", "key", "unnamed",
                 "nr", "no", "row"})  # fmt: skip
_CODE = frozenset({"zip", "zipcode", "postcode", "postal", "code", "class", "type", "category"})
_ZEROS = re.compile(r"0\d+")


@dataclass(frozen=True)
class Found:
    """The kind of a column, None if it is left out, and why."""

    kind: type[Kind] | None
    why: str


def infer(name: str, values: Sequence[Any]) -> Found:
    """The kind of a column.

    Args:
        name: Its name, which may show that numbers are identifiers or codes.
        values: Its training cells, None for missing ones.
    """
    counts = Counter(value for value in values if value is not None)
    filled = counts.total()
    if not filled:
        return Found(None, "empty")
    if len(counts) == 1 and filled == len(values):
        return Found(None, "the same in all rows")
    words = {level(value).lower() for value in counts}
    if words & YES and words & NO and len(words) == 2 and words <= YES | NO:
        return Found(Flag, "")
    distinct, weights = list(counts), np.array(list(counts.values()))
    tokens = {token.lower() for token in _NAME.findall(name)}
    found = numbers(distinct)
    if weights[~np.isnan(found)].sum() >= MOSTLY * filled:
        return _of_numbers(tokens, counts, found)
    dates = seconds(distinct)
    if weights[~np.isnan(dates)].sum() >= MOSTLY * filled:
        return Found(Date, "")
    return _of_texts(name, counts)


def _of_numbers(tokens: set[str], counts: Counter[Any], found: np.ndarray) -> Found:
    """The kind of a column whose cells are numbers."""
    filled = counts.total()
    whole = bool((found[~np.isnan(found)] % 1 == 0).all())
    if whole and len(counts) == filled >= _FEW and tokens & _ID:
        return Found(None, "an identifier: whole numbers that all differ, and named like one")
    coded = any(isinstance(one, str) and _ZEROS.fullmatch(one) for one in counts)
    if coded or (whole and tokens & _CODE):
        if len(counts) <= _VARIED * filled:
            why = "some begin with a zero" if coded else "by its name"
            return Found(Category, f"codes, not numbers: {why}")
        if coded:
            return Found(None, "an identifier: codes that mostly differ")
    strange = sum(
        counts[one] for one, number in zip(counts, found, strict=True) if number != number
    )
    return Found(Number, f"{strange:,} other cells count as missing" if strange else "")


def _of_texts(name: str, counts: Counter[Any]) -> Found:
    """The kind of a column of words."""
    filled = counts.total()
    texts = list(map(str, counts))
    varied = len(counts) / filled
    length = sum(map(len, texts)) / len(texts)
    words = sum(len(text.split()) for text in texts) / len(texts)
    spaced = words >= 2 or not all(map(str.isascii, texts))  # not a path or a long code
    if varied > _VARIED and (words >= _WORDS or (length > _LENGTH and spaced)):
        column = f"'text={name}'" if re.search(r"\W", name) else f"text={name}"
        return Found(
            None, f"a text of {words:.0f} words; to use it: -e text=ENCODER --column {column}"
        )
    if filled >= _FEW and varied > _UNIQUE:
        return Found(None, f"an identifier: {varied:.0%} of its values differ")
    if not frequent(list(counts.elements())):
        return Found(None, "no value occurs twice")
    return Found(Category, "")
