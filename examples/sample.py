"""The starter's sample for the examples: textbook figures and the descriptions people wrote.

Not an example by itself.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import fusemix_starter


def sample_rows(limit: int) -> list[dict[str, str]]:
    """`limit` rows, evenly from all of the sample: image (an absolute path), text, split, …"""
    path = fusemix_starter.sample_path()
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    limit = min(limit, len(rows))
    rows = [rows[i * len(rows) // limit] for i in range(limit)]
    return [{**row, "image": str(path.parent / row["image"])} for row in rows]


def first_words(text: str, count: int = 14) -> str:
    """The beginning of a text: what can be said in eight seconds."""
    return " ".join(text.split()[:count])


def write_csv(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """A manifest with the columns of the first row."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def show_recall(directions: dict[str, dict], notes: dict[str, str] | None = None) -> None:
    """R@1 and R@10 of each direction, in percent, and what guessing gives."""
    print(f"{'direction':20} {'R@1':>6} {'R@10':>6} {'chance of R@10':>16}")
    for name, found in directions.items():
        chance = min(100.0, 1000 / found["gallery"])
        note = (notes or {}).get(name, "")
        print(f"{name:20} {found['r1']:6.1f} {found['r10']:6.1f} {chance:16.1f}  {note}".rstrip())
