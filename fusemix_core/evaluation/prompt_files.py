"""Files of classes and of prompt templates."""

from __future__ import annotations

import errno
import json
from pathlib import Path

from fusemix_core.errors import DataError, short

_MAX_FILE = 16 << 20


def read_classes(path: str | Path) -> list[str] | dict[str, int]:
    """Class names from a JSON list or a text file with one a line; blank lines are left out.

    A JSON object of names and their numbers, `{"cat": 0}` or `{"0": "cat"}`, gives name → number.
    """
    numbered = _numbered(Path(path)) if Path(path).suffix.lower() == ".json" else None
    if numbered is not None:
        return numbered
    rows = _read(Path(path), "classes")
    seen: dict[str, int] = {}
    for row, name in rows:
        if name in seen:
            raise DataError(
                f"the class '{short(name)}' is in row {seen[name]} already.",
                "Keep one of the two.",
                path=path,
                row=row,
            )
        seen[name] = row
    return list(seen)


def _numbered(path: Path) -> dict[str, int] | None:
    """name → number of a JSON object; None if the file has something else."""
    try:
        text = _text(path, "classes")
        values = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, list) or not text.lstrip().startswith("{"):
        return None
    pairs = [
        (value, key) if isinstance(value, str) and key.isdecimal() else (key, value)
        for key, value in values
    ]
    numbers = [(name.strip(), str(number)) for name, number in pairs]
    found = {name: int(number) for name, number in numbers if number.isdecimal()}
    if len(found) < len(pairs) or len(set(found.values())) < len(pairs) or "" in found:
        raise DataError(
            "the classes and their numbers must all be different.",
            'Example: {"cat": 0, "dog": 1}',
            path=path,
        )
    if not found:
        raise DataError("there are no classes in it.", 'Example: {"cat": 0}', path=path)
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def read_templates(path: str | Path) -> list[str]:
    """Prompt templates, each with one `{}` for the class, from a JSON list or a text file."""
    rows = _read(Path(path), "templates")
    for row, template in rows:
        if template.count("{}") != 1:
            raise DataError(
                f"the template {short(template)!r} must hold {{}} once, where the class name goes.",
                "Example: a photo of a {}.",
                path=path,
                row=row,
            )
    return [template for _, template in rows]


def _read(path: Path, what: str) -> list[tuple[int, str]]:
    """(row from 1, stripped entry) of all entries that are not blank."""
    text = _text(path, what)
    lines = _json(text, path) if path.suffix.lower() == ".json" else text.splitlines()
    rows = [(row, line.strip()) for row, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DataError(f"there are no {what} in it.", _example(what), path=path)
    return rows


def _example(what: str) -> str:
    return f"Write the {what} one a line in a .txt file, or as a JSON list of strings."


def _text(path: Path, what: str) -> str:
    """The text of a file. Raises `DataError` if it can't be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise OSError(errno.EFBIG, f"it is larger than {_MAX_FILE >> 20} MiB")
        return data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            row = error.object[: error.start].count(b"\n") + 1
            hint = "Save the file as UTF-8."
            raise DataError("not UTF-8 text.", hint, path=path, row=row) from error
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"the file of {what} can't be read: {reason}.", _example(what), path=path
        ) from error


def _json(text: str, path: Path) -> list[str]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"not valid JSON: {error.msg}, column {error.colno}.",
            'Example: ["cat", "dog"]',
            path=path,
            row=error.lineno,
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"not valid JSON: {error}.", 'Example: ["cat", "dog"]', path=path
        ) from error
    if not isinstance(values, list):
        raise DataError("not a JSON list.", 'Example: ["cat", "dog"]', path=path)
    for row, value in enumerate(values, 1):
        if not isinstance(value, str):
            shown = short(repr(value))
            raise DataError(f"{shown} is not a string.", 'Example: "cat"', path=path, row=row)
        if any("\ud800" <= character <= "\udfff" for character in value):
            hint = "Write the character itself, in UTF-8."
            raise DataError("half a surrogate pair.", hint, path=path, row=row)
    return values
