"""Hard cases of the icons: pairs that are not one item to one item.

Each is a file of pairs as `pairs.jsonl`, with `TRAIN` rows to train on. Except for `labels` the
pairs held out are the same ones, so that figures compare.

    many    500 words, each with 30 drawings
    words   drawings with several words
    labels  the second modality has ten texts: the categories with the most drawings
    copies  5,000 pairs, each of whose drawings comes three times, as three items
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sets.encoders import COPY
from benchmarks.sets.prepare import TEST, VALIDATION, write_lines

Row = Mapping[str, Any]
Pair = dict[str, Any]

TRAIN = 15_000
DRAWINGS = 30
"""Of each word in `many`."""
COPIES = 3
LABELS = 10
CLASSES = 20
"""A category to classify has so many drawings, at least, among those that are never trained on."""


def write_hard_cases(rows: Sequence[Row], pairs: Sequence[Pair], folder: Path) -> None:
    """Write every case, and `classes.jsonl`: drawings to classify by their category."""
    train = [pair for pair in pairs if pair["split"] == "train"]
    held = [pair for pair in pairs if pair["split"] != "train"]
    write_lines(folder / "many.jsonl", [*many(train), *held])
    write_lines(folder / "words.jsonl", [*words(rows, held), *held])
    write_lines(folder / "labels.jsonl", labels(rows))
    write_lines(folder / "copies.jsonl", [*copies(train), *held])
    write_lines(folder / "classes.jsonl", classes(rows))


def many(train: Sequence[Pair], most: int = TRAIN, drawings: int = DRAWINGS) -> list[Pair]:
    """So many drawings of each of a sample of words that have as many."""
    by_word: dict[str, list[Pair]] = defaultdict(list)
    for pair in train:
        by_word[pair["text"]].append(pair)
    enough = sorted(word for word, own in by_word.items() if len(own) >= drawings)
    drawn = sample(enough, most // drawings)
    return [pair for word in drawn for pair in sample(by_word[word], drawings)]


def words(rows: Sequence[Row], held: Sequence[Pair], most: int = TRAIN) -> list[Pair]:
    """Drawings with further words than their own, a pair for each word; no word that is held
    out."""
    never = {pair["text"] for pair in held}
    several = [i for i, row in enumerate(rows) if row["split"] == "train" and row["also"]]
    out: list[Pair] = []
    for number in sample(several, len(several)):
        row = rows[number]
        own = dict.fromkeys(t for t in (row["text"], *row["also"]) if t and t not in never)
        if len(own) > 1:
            out += [{"image": str(number), "text": text, "split": "train"} for text in own]
        if len(out) >= most:
            break
    return out[:most]


def labels(rows: Sequence[Row], most: int = TRAIN) -> list[Pair]:
    """Drawings with their category as the text: a sample of the ten that have the most."""
    counts = Counter(category(row) for row in rows if row["split"] == "train" and category(row))
    taken = {name for name, _ in counts.most_common(LABELS)}
    out: list[Pair] = []
    for split, size in (("train", most), ("validation", VALIDATION), ("test", TEST)):
        own = [i for i, r in enumerate(rows) if r["split"] == split and category(r) in taken]
        drawn = sample(own, size)
        out += [{"image": str(i), "text": category(rows[i]), "split": split} for i in drawn]
    return out


def copies(train: Sequence[Pair], most: int = TRAIN) -> list[Pair]:
    """A sample of pairs whose drawings come several times, as items of their own."""
    drawn = sample(train, most // COPIES)
    numbers = range(COPIES)
    return [{**pair, "image": f"{pair['image']}{COPY}{n}"} for pair in drawn for n in numbers]


def classes(rows: Sequence[Row], fewest: int = CLASSES) -> Iterator[dict[str, str]]:
    """Drawings of the test split with their category, those of `fewest` drawings or more."""
    test = [(i, category(row)) for i, row in enumerate(rows) if row["split"] == "test"]
    counts = Counter(name for _, name in test if name)
    for number, name in test:
        if counts[name] >= fewest:
            yield {"image": str(number), "label": name, "split": "test"}


def sample(items: Sequence[Any], count: int) -> list[Any]:
    """So many of the items, all different, by a fixed seed; all of them where there are fewer."""
    return [items[i] for i in np.random.default_rng(0).permutation(len(items))[:count]]


def category(row: Row) -> str:
    return row["category"].strip().lower()
