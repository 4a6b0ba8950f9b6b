"""How cells are read: lists in them, words for what is missing, and ids that make paths."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fusemix_core.config import DataConfig
from fusemix_core.data.rows import is_missing

ALL = "*"
"""As a key of `prefix` and `suffix`: every modality that is read from files."""
NULL_WORDS = frozenset(
    {"nan", "null", "none", "n/a", "na", "<na>", "#n/a", "nat", "nil", "undefined", "-"}
)
"""Texts, in lower case, that programs write for a missing value."""
_MOST_LIST = 1 << 20
_STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_OPENING = ("[", "(", "{", "array([")
_ARRAY = re.compile(r"array\((\[.*\])(?:,\s*dtype=[\w<>'\"]+)?\)", re.DOTALL)
_BETWEEN = re.compile(r"\s*,\s*|\s+")
_ESCAPE = re.compile(r"""\\(?:[\\'"abfnrtvxuUN0-7]|(.?))""", re.DOTALL)
_NOTHING = re.compile(r"(?:nan|None)(?![^\s,\]])")


@dataclass(frozen=True)
class Rules:
    """What the user says of cells.

    Attributes:
        missing: texts in lower case that stand for nothing.
        missing_ok: whether a row that lacks an entry is not a fault.
        prefix, suffix: modality (or `ALL`) → what is put before or after a cell that names a file.
    """

    missing: frozenset[str] = frozenset()
    prefix: Mapping[str, str] = field(default_factory=dict)
    suffix: Mapping[str, str] = field(default_factory=dict)
    missing_ok: bool = False

    @classmethod
    def of(cls, config: DataConfig) -> Rules:
        """The rules that a config asks for."""
        missing = frozenset(word.strip().lower() for word in config.missing_values or ())
        return cls(missing, config.prefix, config.suffix, config.missing == "ok")

    def is_missing(self, value: Any) -> bool:
        """Whether a cell is empty, or contains a word for nothing."""
        if isinstance(value, str) and self.missing:
            return not value or value.strip().lower() in self.missing
        return is_missing(value)

    def file_name(self, modality: str, cell: Any) -> Any:
        """The path that a cell names: with the prefix and suffix of its modality, if it has any."""
        prefix = self.prefix.get(modality, self.prefix.get(ALL, ""))
        suffix = self.suffix.get(modality, self.suffix.get(ALL, ""))
        if not (prefix or suffix) or not isinstance(cell, str | int) or isinstance(cell, bool):
            return cell
        name = str(cell).strip()
        return f"{prefix}{name}{suffix}" if name else ""


def list_in(cell: str) -> list[str] | str:
    """The texts of a list that a cell contains, else the cell itself.

    The list may be JSON, or what Python (`['a', 'b']`) and NumPy (`['a' 'b']`) write for a list,
    tuple, set or array of texts; `nan` and `None` in these are left out.

    Example:
        >>> list_in("['a dog', 'it\\\\'s a dog']")
        ['a dog', "it's a dog"]
    """
    if not cell.startswith(_OPENING) or len(cell) > _MOST_LIST:
        return cell
    try:
        values = json.loads(cell)
    except (ValueError, RecursionError):
        found = _python_list(cell.rstrip())
        return cell if found is None else found
    if not isinstance(values, list):
        return cell
    if not all(isinstance(v, str) or v is None for v in values):
        return cell
    return [v for v in values if v is not None]


def is_json(cell: str) -> bool:
    """Whether a cell is JSON as it is."""
    try:
        json.loads(cell)
    except (ValueError, RecursionError):
        return False
    return True


def _python_list(cell: str) -> list[str] | None:
    """The texts of a list, tuple, set or array as Python writes them."""
    if match := _ARRAY.fullmatch(cell):
        cell = match[1]
    if cell[:1] + cell[-1:] not in ("[]", "()", "{}"):
        return None
    if cell[0] != "[" and "," not in cell:
        return None  # such as ('a') or ("a text in brackets")
    texts: list[str] = []
    end, at = len(cell) - 1, 1
    while at < end and cell[at].isspace():
        at += 1
    if at == end:
        return None
    while at < end:
        if match := _STRING.match(cell, at):
            try:
                texts.append(ast.literal_eval(_literal(match[0])))
            except (ValueError, SyntaxError):
                return None
        elif not (match := _NOTHING.match(cell, at)):
            return None
        at = match.end()
        if at < end:
            between = _BETWEEN.match(cell, at)
            if between is None:
                return None
            at = between.end()
    return texts if at == end else None


def _literal(text: str) -> str:
    """A quoted text as Python would write it: no line breaks, no backslash that escapes nothing."""
    text = _ESCAPE.sub(lambda m: m[0] if m[1] is None else "\\\\" + m[1], text)
    return text.replace("\n", "\\n").replace("\r", "\\r")
