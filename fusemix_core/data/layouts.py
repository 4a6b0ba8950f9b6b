"""Which of a folder's files are read, and which split each is in: the layouts of the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fusemix_core.data.dataset import SPLITS, Rejected
from fusemix_core.data.delimited import DelimitedReader, table_suffix
from fusemix_core.data.dialect import find_mark, plain_cells
from fusemix_core.data.jsonl import JsonLinesReader, JsonReader
from fusemix_core.data.opening import open_text
from fusemix_core.data.parquet import ParquetReader
from fusemix_core.data.rows import SPLIT_NAMES, Note, Reader, Row, split_named
from fusemix_core.data.shards import ShardReader, is_shard
from fusemix_core.data.suffixes import is_about
from fusemix_core.errors import DataError, short

TABLES = (".csv", ".tsv", ".tab", ".psv", ".jsonl", ".ndjson", ".parquet", ".pq")
MANIFESTS = re.compile(r"(manifest|metadata|pairs)\.(csv|tsv|jsonl|parquet)", re.IGNORECASE)
_NAMED = re.compile(r"(manifest|metadata|pairs|captions)\b.*", re.IGNORECASE)
_TOKENS = re.compile(r"[-_. ]+|(?<=[a-zA-Z])(?=\d)")
_PEEK = 1 << 16
_MOST_TEXTS = 0.5
"""More of the texts than this share must have a medium of their name."""


@dataclass
class Inventory:
    """The files of a folder by what they are; paths are relative to it.

    Attributes:
        media: path without suffix → modality → its files.
        texts: path without suffix → its `.txt` files.
        tables, shards: files that contain rows.
        others: what no reader knows.
    """

    media: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, names: Iterable[str], modality_of_suffix: Mapping[str, str]) -> Inventory:
        """Sort files by what they are."""
        found = cls()
        for name in names:
            stem, suffix = os.path.splitext(name)
            modality = modality_of_suffix.get(suffix.lower())
            if suffix.lower() == ".txt":
                found.texts.setdefault(stem, []).append(name)
            elif modality:
                found.media.setdefault(stem, {}).setdefault(modality, []).append(name)
            elif is_shard(name):
                found.shards.append(name)
            elif table_suffix(Path(name)) in TABLES:
                found.tables.append(name)
            else:
                found.others.append(name)
        return found

    def pair_parallel(self) -> bool:
        """Bring texts to the media of the same name in another folder (`images/7.jpg` and
        `texts/7.txt`, `images/train/7.jpg` and `texts/train/7.txt`), if no name is there twice and
        most texts find theirs so. A text of one split never goes to a medium of another. Returns
        whether they do."""
        if self.has_sidecars or not self.texts:
            return False
        for key in (_without_last_folder, _without_first_folder, os.path.basename):
            media, texts = {key(s): s for s in self.media}, {key(s): s for s in self.texts}
            both = {
                name
                for name in media.keys() & texts.keys()
                if not _other_split(media[name], texts[name])
            }
            unique = len(media) == len(self.media) and len(texts) == len(self.texts)
            if unique and len(both) > _MOST_TEXTS * len(texts):
                for name in both:
                    self.texts[media[name]] = self.texts.pop(texts[name])
                return True
        return False

    @property
    def has_sidecars(self) -> bool:
        """Whether any medium has a text beside it."""
        return not self.media.keys().isdisjoint(self.texts)


def _other_split(one: str, other: str) -> bool:
    """Whether the folders of two files name different splits."""
    splits = {split_of_folders(one), split_of_folders(other)} - {None}
    return len(splits) > 1


def _without_last_folder(stem: str) -> str:
    folder, name = os.path.split(stem)
    return os.path.join(os.path.dirname(folder), name)


def _without_first_folder(stem: str) -> str:
    return stem.partition(os.sep)[2] or stem


def chosen_tables(inventory: Inventory, root: Path) -> list[str]:
    """The tables that stand for a folder of no sidecars and shards.

    These are manifests by name, and tables that are named after a split or lie in a folder that is;
    else all Parquet files, else the only table (a `.txt`, too, if it is one). Raises `DataError` if
    there are several and none is named so.
    """
    named = [
        name
        for name in inventory.tables
        if _NAMED.fullmatch(os.path.basename(name)) or split_of_file(name)
    ]
    parquet = [name for name in inventory.tables if name.lower().endswith((".parquet", ".pq"))]
    chosen = named or parquet or inventory.tables
    if not chosen:
        top = [n for names in inventory.texts.values() for n in names if os.sep not in n]
        chosen = [name for name in top if not is_about(name) and _is_table(root / name)]
    if len(chosen) > 1 and not named and not parquet:
        names = ", ".join(map(short, chosen[:10]))
        raise DataError(
            f"the folder contains several tables: {names}",
            f"Name one, such as --data {root / chosen[0]}",
            path=root,
        )
    return chosen


def _is_table(path: Path) -> bool:
    """Whether the first lines of a `.txt` have two cells or more each."""
    if not path.is_file():
        return False
    try:
        with open_text(path) as file:
            text = file.read(_PEEK).decode("utf-8", "replace")
    except (OSError, DataError):
        return False
    lines = [line for line in text.splitlines()[:20] if line.strip()]
    if len(lines) < 2:
        return False
    mark = find_mark(lines, ".csv")
    width = len(plain_cells(lines[0], mark))
    return width > 1 and all(len(plain_cells(line, mark)) == width for line in lines[1:-1])


def split_of_folders(name: str) -> str | None:
    """The split that the first folder of a path so named tells."""
    folders = Path(name).parts[:-1]
    return next((split for folder in folders if (split := split_named(folder))), None)


def split_of_file(name: str) -> str | None:
    """The split that a table or shard is in, by the words of its name or by its folders."""
    words = _TOKENS.split(os.path.basename(name).lower())
    told = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return told.pop() if len(told) == 1 else split_of_folders(name)


def settle(splits: Sequence[str | None]) -> tuple[bool, list[Note]]:
    """(whether the splits that names tell hold, what the user should know).

    They hold if there is something to train on, which what lies outside of them is, too.
    """
    told = {split for split in splits if split}
    if not told:
        return False, []
    names = ", ".join(name for name in SPLITS if name in told)
    outside = sum(split is None for split in splits)
    if not outside and "train" not in told:
        text = (
            f"All files are in folders or files named {names}: these are not taken as splits, as "
        )
        return False, [Note(f"{text}nothing would be left to train on.")]
    if outside:
        lies = "1 file lies outside of the splits ({}) and is"
        lie = f"{outside:,} files lie outside of the splits ({{}}) and are"
        text = (lies if outside == 1 else lie).format(names)
        return True, [Note(f"{text} used for training.")]
    return True, []


def rows_of_files(
    root: Path, names: Sequence[str], options: Mapping[str, str | None]
) -> Iterator[Row | Rejected | Note]:
    """The rows of the tables and shards in a folder, with the splits that their names tell."""
    splits = [split_of_file(name) for name in names]
    held, notes = settle(splits)
    yield from notes
    for name, split in zip(names, splits, strict=True):
        if not (root / name).is_file():
            raise DataError("this is not a file", path=root / name)
        for row in _reader_of(name, options).rows(root / name):
            if held and isinstance(row, Row) and row.split is None:
                row = replace(row, split=split or "train")
            yield row


def _reader_of(name: str, options: Mapping[str, str | None]) -> Reader:
    suffix = table_suffix(Path(name))
    encoding = options.get("encoding")
    if is_shard(name):
        return ShardReader(encoding=encoding)
    readers: Mapping[str, Callable[[], Reader]] = {
        ".parquet": ParquetReader,
        ".pq": ParquetReader,
        ".jsonl": lambda: JsonLinesReader(encoding=encoding),
        ".ndjson": lambda: JsonLinesReader(encoding=encoding),
        ".json": lambda: JsonReader(encoding=encoding),
    }
    if suffix in readers:
        return readers[suffix]()
    return DelimitedReader(delimiter=options.get("delimiter"), encoding=encoding)
