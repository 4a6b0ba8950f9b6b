"""Files of classes and of prompt templates."""

from __future__ import annotations

import json
from pathlib import Path

from fusemix_core.errors import DataError


def read_classes(path: str | Path) -> list[str]:
    """Class names from a JSON list or a text file with one a line; blank lines are left out."""
    rows = _read(Path(path), "classes")
    seen: dict[str, int] = {}
    for row, name in rows:
        if name in seen:
            raise DataError(
                f"the class '{name}' stands in row {seen[name]} already.",
                "Keep one of the two.",
                path=path,
                row=row,
            )
        seen[name] = row
    return list(seen)


def read_templates(path: str | Path) -> list[str]:
    """Prompt templates, each with one `{}` for the class, from a JSON list or a text file."""
    rows = _read(Path(path), "templates")
    for row, template in rows:
        if template.count("{}") != 1:
            raise DataError(
                f"the template {template!r} must hold {{}} once, where the class name goes.",
                "Example: a photo of a {}.",
                path=path,
                row=row,
            )
    return [template for _, template in rows]


def _read(path: Path, what: str) -> list[tuple[int, str]]:
    """(row from 1, stripped entry) of all entries that are not blank."""
    example = f"Write the {what} one a line in a .txt file, or as a JSON list of strings."
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(
            f"the file of {what} can't be read: {reason}.", example, path=path
        ) from error
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        raise DataError("not UTF-8 text.", "Save the file as UTF-8.", path=path, row=row) from error
    lines = _json(text, path) if path.suffix.lower() == ".json" else text.splitlines()
    rows = [(row, line.strip()) for row, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DataError(f"there are no {what} in it.", example, path=path)
    return rows


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
    if not isinstance(values, list):
        raise DataError("not a JSON list.", 'Example: ["cat", "dog"]', path=path)
    for row, value in enumerate(values, 1):
        if not isinstance(value, str):
            raise DataError(f"{value!r} is not a string.", 'Example: "cat"', path=path, row=row)
    return values
