"""Knowledge: a file of triples, and the entities that texts mention."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusemix_core.errors import ConfigError, DataError

COLUMNS = ("head", "relation", "tail")
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, eq=False)
class Triples:
    """Statements: head, relation, tail.

    Attributes:
        entities: the different heads and tails, in order of appearance.
        relations: the different relations, in that order.
        ids: int64 `[n, 3]`: numbers of head, relation and tail; no triple is twice there.
    """

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    ids: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[tuple[str, str, str]]) -> Triples:
        """The triples of rows of names.

        Example:
            Triples.of([("aspirin", "is a", "salicylate"), ("aspirin", "has role", "analgesic")])
        """
        entities: dict[str, int] = {}
        relations: dict[str, int] = {}
        ids = [
            (
                entities.setdefault(head, len(entities)),
                relations.setdefault(relation, len(relations)),
                entities.setdefault(tail, len(entities)),
            )
            for head, relation, tail in dict.fromkeys(rows)
        ]
        table = np.array(ids, np.int64).reshape(-1, 3)
        return cls(tuple(entities), tuple(relations), table)

    def edges(self, reverse: bool = False) -> np.ndarray:
        """int64 `[2, E]`: head → tail, each pair of entities once, whatever the relation.

        Args:
            reverse: whether each edge is also there from tail to head.
        """
        pairs = self.ids[:, [0, 2]]
        if reverse:
            pairs = np.concatenate([pairs, pairs[:, ::-1]])
        return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).T


def read_triples(path: str | Path) -> Triples:
    """The triples of a file with the columns `head`, `relation`, `tail`, and any others.

    Args:
        path: CSV; tab-separated if it ends in `.tsv`. Relative to the working folder.

    Raises:
        ConfigError: no file is named, or there is none.
        DataError: a column is missing, or a cell is empty, or there is no triple.
    """
    if not str(path):
        raise ConfigError(
            "No file of triples is named.",
            "Name one with the columns head, relation, tail: --set objective.triples=triples.csv",
        )
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"There is no file of triples {file}.", "Paths are relative to here.")
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    rows = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, delimiter=delimiter)
            names = tuple(reader.fieldnames or ())
            if lacking := [name for name in COLUMNS if name not in names]:
                raise DataError(
                    f"has no column '{lacking[0]}'; it has: {', '.join(names) or 'none'}",
                    "The first line names the columns: head,relation,tail",
                    path=file,
                )
            for row in reader:
                head, relation, tail = ((row[name] or "").strip() for name in COLUMNS)
                if not (head and relation and tail):
                    raise DataError(
                        "a cell is empty", "Fill it in.", path=file, row=reader.line_num
                    )
                rows.append((head, relation, tail))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"can't be read: {error}", "Write it as UTF-8 CSV.", path=file) from error
    if not rows:
        raise DataError("contains no triple", "Add some below the names of columns.", path=file)
    return Triples.of(rows)


@dataclass(frozen=True)
class Mention:
    """An entity in a text: its number, and where it begins and ends, in characters."""

    entity: int
    start: int
    end: int


class Mentions:
    """Finds entities in texts by their names: words alike but for case and a plural `s`, the
    longest name first, none within another.

    Example:
        Mentions(["methyl ester", "ester"])("It is a methyl ester.")  # one mention, of number 0
    """

    def __init__(self, entities: Sequence[str]) -> None:
        self._by_first: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        for number, name in enumerate(entities):
            words = tuple(word for word, _, _ in _words(name))
            if words:
                self._by_first.setdefault(words[0], []).append((words, number))
        for names in self._by_first.values():
            names.sort(key=lambda one: -len(one[0]))

    def __call__(self, text: str) -> list[Mention]:
        """The mentions, in order."""
        words = _words(text)
        plain = [word for word, _, _ in words]
        found, at = [], 0
        while at < len(words):
            for name, number in self._by_first.get(plain[at], ()):
                if tuple(plain[at : at + len(name)]) == name:
                    found.append(Mention(number, words[at][1], words[at + len(name) - 1][2]))
                    at += len(name) - 1
                    break
            at += 1
        return found


def _words(text: str) -> list[tuple[str, int, int]]:
    """The words and signs of a text without case and plural, each with its place."""
    return [(_plain(m.group()), m.start(), m.end()) for m in _WORD.finditer(text)]


def _plain(word: str) -> str:
    small = word.casefold()
    return small[:-1] if len(small) > 3 and small.endswith("s") else small
