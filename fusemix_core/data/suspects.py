"""Texts that are probably not meant as texts: words for nothing, ids of classes, lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from fusemix_core.data.arrow_texts import Texts
from fusemix_core.data.items import Items
from fusemix_core.data.media import Medium
from fusemix_core.data.references import Reference
from fusemix_core.data.rules import NULL_WORDS
from fusemix_core.errors import short

_FEWEST = 0.9
"""Share of the texts that are whole numbers, from which on they are ids rather than texts."""
_LONGEST = max(map(len, NULL_WORDS))
_BRACKETS = ("[", "{")
_IS_BRACKET = np.isin(np.arange(256), [ord(one) for one in _BRACKETS])
_MAY_BE_DIGIT = np.isin(np.arange(256), [*b"0123456789", *range(128, 256)])
"""By the first byte: what is not ASCII may be a digit, too."""


@dataclass(frozen=True)
class Suspects:
    """Texts of a modality that are probably not meant as texts.

    kind: `missing`, `number` or `brackets`. count: how many rows have one (of `number`: how many
    different texts are one). example: the first. warning: a sentence or two.
    """

    kind: str
    modality: str
    count: int
    example: str
    warning: str


def suspicious_texts(items: Mapping[str, Items], links: np.ndarray) -> list[Suspects]:
    """Each kind of text that a modality probably shouldn't have.

    Args:
        items: by modality, in the order of the columns of `links`.
        links: int64 `[m, K]`.
    """
    found = []
    for column, (modality, one) in zip(links.T, items.items(), strict=True):
        texts = one.references
        if not _are_texts(texts, one.medium) or not len(one):
            continue
        rows = np.bincount(column[column >= 0], minlength=len(one))

        def add(kind: str, at: list[int], warning: str, modality=modality, rows=rows, texts=texts):
            count = len(at) if kind == "number" else int(rows[at].sum())
            found.append(Suspects(kind, modality, count, short(texts[at[0]], 60), warning))

        short_ones, numbers, bracketed = _candidates(texts)
        nulls = [i for i in short_ones if texts[i].lower() in NULL_WORDS and rows[i]]
        if nulls:
            words = ",".join(short(texts[i], 20) for i in nulls)
            count = _rows(rows[nulls].sum(), "has", "have")
            warning = (
                f"{count} nothing but {_listed(texts, nulls)} for {modality}. If this means that "
                f"it is missing: --missing-values {words}"
            )
            add("missing", nulls, warning)
        digits = [i for i in numbers if texts[i].isdigit()]
        if modality == "text" and one.medium.language and len(digits) >= _FEWEST * len(texts):
            warning = (
                f"{len(digits):,} of {len(texts):,} different texts are whole numbers, such as "
                f"'{short(texts[digits[0]], 20)}'. If they stand for classes, write the names."
            )
            add("number", digits, warning)
        lists = [i for i in bracketed if texts[i][-1:] in "]}"]
        if modality == "text" and one.medium.language and lists:
            warning = (
                f"{_rows(rows[lists].sum(), 'has', 'have')} a text in brackets, such as "
                f"{short(texts[lists[0]], 60)}: it is read as one text, not as a list."
            )
            add("brackets", lists, warning)
    return found


def _are_texts(references: Sequence[str | Reference], how: Medium) -> TypeGuard[Sequence[str]]:
    return how.inline


def _candidates(texts: Sequence[str]) -> tuple[Iterable[int], Iterable[int], Iterable[int]]:
    """The texts that may be a word for nothing, by their length; those whose first character is a
    digit; those that begin with a bracket. There may be others among them."""
    if not isinstance(texts, Texts):
        digits = [i for i, text in enumerate(texts) if text[:1].isdigit()]
        return range(len(texts)), digits, [i for i, t in enumerate(texts) if t[:1] in _BRACKETS]
    is_short, is_digit, is_bracket = [], [], []
    for start, first, lengths in texts.starting():
        is_short.append(start + np.flatnonzero(lengths <= _LONGEST))
        is_digit.append(start + np.flatnonzero(_MAY_BE_DIGIT[first]))
        is_bracket.append(start + np.flatnonzero(_IS_BRACKET[first]))
    return tuple(np.concatenate(one).tolist() for one in (is_short, is_digit, is_bracket))


def _rows(count: int, one: str, many: str) -> str:
    return f"{count:,} row {one}" if count == 1 else f"{count:,} rows {many}"


def _listed(texts: Sequence[str], at: list[int]) -> str:
    names = [f"'{short(texts[i], 20)}'" for i in at[:5]]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
