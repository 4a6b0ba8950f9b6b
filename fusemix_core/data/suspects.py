"""Texts that are probably not meant as texts: words for nothing, ids of classes, lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fusemix_core.data.arrow_texts import Texts
from fusemix_core.data.items import Items
from fusemix_core.data.rules import NULL_WORDS
from fusemix_core.errors import short

_FEWEST = 0.9
"""Share of the texts that are whole numbers, from which on they are ids rather than texts."""
_LONGEST = max(map(len, NULL_WORDS))
_DIGITS, _BRACKETS = frozenset("0123456789"), frozenset("[{")


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
        if not one.medium.inline or not len(one):
            continue
        rows = np.bincount(column[column >= 0], minlength=len(one))
        texts = one.references

        def add(kind: str, at: list[int], warning: str, modality=modality, rows=rows, texts=texts):
            count = len(at) if kind == "number" else int(rows[at].sum())
            found.append(Suspects(kind, modality, count, short(texts[at[0]], 60), warning))

        nulls = [i for i in _short(texts) if texts[i].lower() in NULL_WORDS and rows[i]]
        if nulls:
            words = ",".join(short(texts[i], 20) for i in nulls)
            count = _rows(rows[nulls].sum(), "has", "have")
            warning = (
                f"{count} nothing but {_listed(texts, nulls)} for {modality}. If this means that "
                f"it is missing: --missing-values {words}"
            )
            add("missing", nulls, warning)
        digits = [i for i in _beginning(texts, _DIGITS) if texts[i].isdigit()]
        if modality == "text" and one.medium.language and len(digits) >= _FEWEST * len(texts):
            warning = (
                f"{len(digits):,} of {len(texts):,} different texts are whole numbers, such as "
                f"'{short(texts[digits[0]], 20)}'. If they stand for classes, write the names."
            )
            add("number", digits, warning)
        lists = [i for i in _beginning(texts, _BRACKETS) if texts[i][-1:] in "]}"]
        if modality == "text" and one.medium.language and lists:
            warning = (
                f"{_rows(rows[lists].sum(), 'has', 'have')} a text in brackets, such as "
                f"{short(texts[lists[0]], 60)}: it is read as one text, not as a list."
            )
            add("brackets", lists, warning)
    return found


def _short(texts: Sequence[str]) -> Iterable[int]:
    """The texts that may be a word for nothing, by their length."""
    if not isinstance(texts, Texts):
        return range(len(texts))
    found = (start + np.flatnonzero(lengths <= _LONGEST) for start, _, lengths in texts.starting())
    return np.concatenate(list(found)).tolist()


def _beginning(texts: Sequence[str], first: frozenset[str]) -> Iterable[int]:
    """The texts whose first character is one of these, or is not ASCII if all digits are."""
    if not isinstance(texts, Texts):
        of = str.isdigit if first is _DIGITS else first.__contains__
        return [i for i, text in enumerate(texts) if of(text[:1])]
    wanted = np.isin(np.arange(256), [ord(one) for one in first])
    wanted[128:] = first is _DIGITS
    found = (start + np.flatnonzero(wanted[begins]) for start, begins, _ in texts.starting())
    return np.concatenate(list(found)).tolist()


def _rows(count: int, one: str, many: str) -> str:
    return f"{count:,} row {one}" if count == 1 else f"{count:,} rows {many}"


def _listed(texts: list[str], at: list[int]) -> str:
    names = [f"'{short(texts[i], 20)}'" for i in at[:5]]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
