"""Folders: media with sidecar texts, folders of classes, and the tables and shards inside."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from fusemix_core.data.dataset import Rejected
from fusemix_core.data.foreign import head_of, is_dicom
from fusemix_core.data.layouts import (
    Inventory,
    chosen_tables,
    rows_of_files,
    settle,
    split_of_folders,
)
from fusemix_core.data.media.extras import DICOM, extra_of
from fusemix_core.data.references import Sidecar
from fusemix_core.data.rows import MAX_PATH, Note, Reader, Row, split_named
from fusemix_core.data.suffixes import is_about, modality_of_suffix
from fusemix_core.data.walking import Seen, walk
from fusemix_core.errors import DataError

_CLASSES = 0.9
"""Share of the media that lie in folders of their own, from which on these are classes."""
_REMEDIES = {
    ".svg": "convert it to PNG",
    ".nii": "convert its slices to PNG",
    ".wma": "convert it to FLAC or WAV",
    ".pdf": "convert its pages to PNG",
}


class FolderReader(Reader):
    """A folder of media, `photo.jpg` with `photo.txt` beside it, or of tables or tar shards.

    Files of one folder that differ only in their suffix are one row (`a.jpg`, `a.wav`, `a.txt`; of
    `a.jpg` and `a.png` each is linked). Each line of the text that is not blank is a caption. Texts
    may lie in a folder of their own (`images/a.jpg`, `texts/a.txt`).
    Without any texts, the names of the folders are the column `label`. Without media that have
    texts, the tables (CSV, JSONL, Parquet) in the folder are read: `train/metadata.jsonl`,
    `data/train-00000-of-00002.parquet`. Tar shards are read wherever they lie.

    A folder named as a split (`train`, `val`, `test2017`, …) is that split, if anything is left to
    train on. Hidden files are left out; any other file that is not read is a `Rejected`. Columns of
    media: text or label, and the modalities that declare their suffixes (image, audio, …).

    Args:
        allow_outside: whether links to folders outside are followed.
        encoding: of the texts and tables; None is UTF-8.
        delimiter: of the tables; None finds it.
    """

    general = True

    def __init__(
        self,
        *,
        allow_outside: bool = False,
        encoding: str | None = None,
        delimiter: str | None = None,
    ) -> None:
        self.allow_outside, self.encoding = allow_outside, encoding
        self.options = {"encoding": encoding, "delimiter": delimiter}

    def matches(self, path: Path) -> bool:
        return path.is_dir()

    def rows(self, path: Path) -> Iterator[Row | Rejected | Note]:
        seen = list(walk(path, self.allow_outside))
        unread = [one for one in seen if one.problem]
        found = Inventory.of((one.name for one in seen if not one.problem), modality_of_suffix())
        _take_dicom(path, found)
        if found.pair_parallel():
            yield Note(f"{path}: texts are read for the media of their name in another folder.")
        yield from rows_of_files(path, found.shards, self.options)
        tables = [] if found.shards or found.has_sidecars else chosen_tables(found, path)
        if tables:
            named: set[str] = set()
            for row in rows_of_files(path, tables, self.options):
                if isinstance(row, Row):
                    named |= _names_in(row)
                yield row
            found.media = {s: kinds for s, kinds in found.media.items() if not _in(s, kinds, named)}
            yield from self._left_out(path, found, unread, tables, 0)
            return
        if not found.media and not found.shards:
            raise _nothing(path, found, unread)
        count = 0
        for row in self._media_rows(path, found):
            count += not isinstance(row, Note)
            yield row
        yield from self._left_out(path, found, unread, [], count)

    def _media_rows(self, path: Path, found: Inventory) -> Iterator[Row | Note]:
        names = {stem: next(iter(kinds.values()))[0] for stem, kinds in found.media.items()}
        splits = [split_of_folders(name) for name in names.values()]
        held, notes = settle(splits)
        labels = {} if found.has_sidecars else _classes(names)
        if labels:
            shown = sorted(set(labels.values()))
            notes.append(
                Note(
                    f"{path} has no .txt beside its files: the names of the folders "
                    f"({', '.join(shown[:3])}{', …' * (len(shown) > 3)}) are the column 'label'."
                )
            )
        yield from notes
        for number, (stem, kinds) in enumerate(found.media.items(), start=1):
            values: dict[str, object] = {
                kind: files[0] if len(files) == 1 else files for kind, files in kinds.items()
            }
            texts = [Sidecar(name, self.encoding) for name in found.texts.pop(stem, ())]
            if labels:
                values["label"] = labels.get(stem)
            else:
                values["text"] = texts or None
            split = splits[number - 1] or "train" if held else None
            yield Row(str(path), number, values, split, base=str(path), name=names[stem])

    def _left_out(
        self, path: Path, found: Inventory, unread: list[Seen], tables: list[str], count: int
    ) -> Iterator[Rejected]:
        """An entry for each file that is in no row; `count` rows come before."""
        reasons: list[tuple[str, str, bool]] = []
        known: set[str] = set()
        for name in found.others:
            stem = next((stem for stem in (name, *_stems(name)) if stem in found.texts), "")
            bad = bool(stem) and not tables and not is_about(name)
            if bad:
                known.add(stem)
            suffix = os.path.splitext(name)[1]
            remedy = _remedy(suffix.lower()) if bad else ""
            what = f"fusemix doesn't read {suffix} files" if suffix else "no reader knows this file"
            if bad and _has_no_suffix(name) and is_dicom(head_of(path / name)):
                what, remedy = "it is a DICOM file", DICOM.remedy
            shown = " with ".join([name, *(found.texts[stem] if bad else ())])
            reasons.append((shown, f"{what}; {remedy}" if remedy else what, bad))
        for stem, names in found.texts.items():
            if stem in known:
                continue  # told by the file beside it
            for name in names:
                if name in tables:
                    continue
                about = is_about(name) or bool(tables)
                why = "it is not one of the tables that are read" if tables else _NO_MEDIUM
                reasons.append((name, why, not about))
        if tables:
            media = [n for kinds in found.media.values() for names in kinds.values() for n in names]
            reasons += [(name, "no row of the tables names this file", False) for name in media]
        for name in found.tables:
            if name not in tables:
                reasons.append((name, "the table is not read, as other files are", False))
        reasons += [(one.name, one.problem, one.bad) for one in unread]
        for number, (name, why, bad) in enumerate(reasons, start=count + 1):
            yield Rejected(str(path), number, "", f"{name}: {why}", bad)


def _take_dicom(path: Path, found: Inventory) -> None:
    """Make images of the DICOM files without a suffix, as scanners name them, if they can be
    read."""
    if not DICOM.installed:
        return
    for name in [name for name in found.others if _has_no_suffix(name)]:
        if is_dicom(head_of(path / name)):
            found.others.remove(name)
            found.media.setdefault(name, {}).setdefault(DICOM.modality, []).append(name)


def _has_no_suffix(name: str) -> bool:
    """Whether nothing, or a number as in `1.2.840.1`, follows the last dot of a name."""
    suffix = os.path.splitext(name)[1]
    return not suffix or suffix[1:].isdigit()


def _remedy(suffix: str) -> str:
    """What to do about files of a suffix that no reader knows."""
    extra = extra_of(suffix)
    return extra.remedy if extra else _REMEDIES.get(suffix, "")


def _names_in(row: Row) -> set[str]:
    """What may be names of files, or parts of these, in the cells of a row."""
    names = set()
    for cell in row.values.values():
        for one in cell if isinstance(cell, list) else [cell]:
            if isinstance(one, int) or (isinstance(one, str) and len(one) <= MAX_PATH):
                names.add(_end(str(one)))
    return names


def _in(stem: str, kinds: dict[str, list[str]], named: set[str]) -> bool:
    """Whether a file of this stem is named, if only without its suffix."""
    files = [_end(name) for names in kinds.values() for name in names]
    return _end(stem) in named or any(name in named for name in files)


def _end(name: str) -> str:
    """The last part of a path, as it is compared."""
    return unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2]).casefold()


def _stems(name: str) -> Iterator[str]:
    """A path without its last suffix, its last two, and so on."""
    folder, base = os.path.split(name)
    while "." in base[1:]:
        base = base.rpartition(".")[0]
        yield os.path.join(folder, base)


_NO_MEDIUM = "there is no image, sound or video beside this text"


def _classes(names: dict[str, str]) -> dict[str, str]:
    """Stem → the name of its folder, if media are sorted into folders by class; else {}."""
    labels = {}
    for stem, name in names.items():
        folders = [part for part in Path(name).parts[:-1] if not split_named(part)]
        if folders:
            labels[stem] = folders[-1]
    enough = len(labels) >= _CLASSES * len(names)
    return labels if enough and len(set(labels.values())) > 1 else {}


def _nothing(path: Path, found: Inventory, unread: list[Seen]) -> DataError:
    """The error for a folder in which nothing can be read; it says what is there."""
    suffixes = dict.fromkeys(os.path.splitext(name)[1].lower() for name in found.others)
    what = [f"{suffix} files" for suffix in list(suffixes)[:8] if suffix]
    what += [".txt files"] * bool(found.texts)
    hint = "Give a manifest (CSV, TSV, JSONL, Parquet), .tar shards, or a folder of media with a "
    lines = [f"It contains {', '.join(what)}."] * bool(what)
    lines += [f"{one.name}: {one.problem}" for one in unread[:5]]
    return DataError(
        "the folder contains no images, sounds or videos that fusemix knows",
        "\n".join([*lines, f"{hint}.txt beside each."]),
        path=path,
    )
