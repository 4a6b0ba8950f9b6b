"""The results of a benchmark on disk: one JSON line a fit, added as it is done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusemix_core.errors import ArtefactError, ConfigError

NAME = "results.jsonl"

Line = Mapping[str, Any]

CHOSEN = "chosen"
"""In place of a scorer's name: the one that validation chose."""


def of_scorer(line: Line, found: Mapping[str, Any], scorer: str) -> Any:
    """What `found` has for a scorer, or for the one that validation chose for the line."""
    return found[line["scorer"] if scorer == CHOSEN else scorer]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a results file; none if there is no file yet.

    A last line that was cut short is left out; any other that is not JSON object is an
    `ArtefactError`.
    """
    if not path.exists():
        return []
    try:
        texts = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ArtefactError(f"{path} can't be read: {error}") from error
    lines = []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text.decode())
        except (ValueError, RecursionError) as error:
            if number == len(texts):
                break
            raise _damaged(path, number) from error
        if not isinstance(line, dict) or not isinstance(line.get("key"), str):
            raise _damaged(path, number)
        lines.append(line)
    return lines


def results_in(out: str | Path) -> Path:
    """The results file of a folder, which is made if it isn't there."""
    path = Path(out) / NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtefactError(f"{path.parent} can't be made: {error}") from error
    return path


def seed_list(seeds: int | Sequence[int]) -> list[int]:
    """The seeds that are given by their number, or one by one.

    Raises:
        ConfigError: there is none.
    """
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not numbers:
        raise ConfigError("No seed is given.", "Give 1 or more: --seeds 3")
    return numbers


def _damaged(path: Path, number: int) -> ArtefactError:
    return ArtefactError(
        f"{path}, line {number} is not a result.", "Delete the line to have it again."
    )


def add_line(path: Path, line: Line) -> None:
    """Add a line, on disk when this returns. What a killed run left of a last line goes."""
    text = json.dumps(line, ensure_ascii=False) + "\n"
    try:
        with open(path, "ab+") as file:
            file.truncate(_whole(file))
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ArtefactError(f"{path} can't be written: {error}") from error


def _whole(file: Any) -> int:
    """The length of the file up to the end of its last whole line."""
    place = file.seek(0, os.SEEK_END)
    while place:
        step = min(place, 1 << 16)
        file.seek(place - step)
        end = file.read(step).rfind(b"\n")
        if end >= 0:
            return place - step + end + 1
        place -= step
    return 0


def key_of(facts: Mapping[str, Any]) -> str:
    """By what a fit is known: a digest of all that decides its result."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
