"""Columns that several others make: `{impression} {findings}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
_SEPARATORS = " \t\n,;:.|/-"


class Template(str):
    """A text with places for the cells of a row, such as `Findings: {findings} ({view})`.

    It is in lists of columns beside names of columns. `{{` and `}}` are braces.

    Attributes:
        columns: The columns that it names, in order.

    Example:
        >>> Template("{impression} {findings}").render({"impression": "Normal."})
        'Normal.'
    """

    columns: tuple[str, ...]

    def __new__(cls, text: str) -> Self:
        made = super().__new__(cls, text)
        names = [match[1] for match in _PLACE.finditer(text) if match[1]]
        made.columns = tuple(dict.fromkeys(name.strip() for name in names))
        return made

    def render(self, values: Mapping[str, str]) -> str:
        """The text with the values in their places; "" if there are none.

        A place without a value is left out, with what belongs to it: what is after it up to
        white space, what is before it from there on, and separators that it would leave at
        either end.
        """
        parts = self._parts()
        here = [bool(values.get(name)) for _, name, _ in parts]
        if not any(here):
            return ""
        first, last = here.index(True), len(here) - 1 - here[::-1].index(True)
        text = "".join(
            before + values[name] + after
            for (before, name, after), there in zip(parts, here, strict=True)
            if there
        )
        if first > 0:
            text = text.lstrip(_SEPARATORS)
        if last < len(parts) - 1:
            text = text.rstrip(_SEPARATORS.replace(".", ""))
        return text.strip()

    def _parts(self) -> list[tuple[str, str, str]]:
        """(text before, column, text after) of each place."""
        literals, names, at = [""], [], 0
        for match in _PLACE.finditer(self):
            literals[-1] += self[at : match.start()]
            if match[1]:
                names.append(match[1].strip())
                literals.append("")
            else:
                literals[-1] += match[0][0]
            at = match.end()
        literals[-1] += self[at:]
        parts, before = [], literals[0]
        for name, literal in zip(names[:-1], literals[1:-1], strict=True):
            cut = next((i for i, letter in enumerate(literal) if letter.isspace()), 0)
            parts.append((before, name, literal[:cut]))
            before = literal[cut:]
        return [*parts, (before, names[-1], literals[-1])] if names else []


def sources_of(columns: list[str]) -> list[str]:
    """The columns themselves, of templates those that they name."""
    return [
        name
        for column in columns
        for name in (column.columns if isinstance(column, Template) else (column,))
    ]
