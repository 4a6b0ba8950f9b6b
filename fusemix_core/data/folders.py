"""A folder of media with sidecar texts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fusemix_core.data.dataset import Rejected
from fusemix_core.data.references import Sidecar
from fusemix_core.data.rows import SPLIT_NAMES, Reader, Row
from fusemix_core.errors import DataError
from fusemix_core.registry import registry


def modality_of_suffix() -> dict[str, str]:
    """Suffix, small and with the dot → the modality that declares it."""
    return {s: one.name for one in registry.all_modalities() for s in one.suffixes}


class FolderReader(Reader):
    """`photo.jpg` with `photo.txt` beside it, here and in subfolders.

    Files of one folder that differ only in their suffix are one row (`a.jpg`, `a.wav`, `a.txt`).
    Each line of the text that is not blank is a caption. Where every medium lies in a top folder
    named as a split (`train`, `val`, …), that is its split. Hidden files are passed over.
    Columns: text, and the modalities that declare their suffixes: image, audio, video, ….
    """

    general = True

    def matches(self, path: Path) -> bool:
        return path.is_dir()

    def rows(self, path: Path) -> Iterator[Row | Rejected]:
        stems: dict[str, dict[str, str]] = {}
        known = {**modality_of_suffix(), ".txt": "text"}
        for file in _files(path):
            stem, suffix = os.path.splitext(file)
            kind = known.get(suffix.lower())
            if kind:
                stems.setdefault(stem, {}).setdefault(kind, file)
        stems = {stem: kinds for stem, kinds in stems.items() if kinds.keys() != {"text"}}
        if not stems:
            raise DataError(
                "the folder holds no images, sounds or videos that fusemix knows",
                "Give a manifest (CSV, TSV, JSONL, Parquet), .tar shards, or a folder of media "
                "with a .txt beside each.",
                path=path,
            )
        tops = {Path(stem).parts[0].lower() for stem in stems if len(Path(stem).parts) > 1}
        nested = all(len(Path(stem).parts) > 1 for stem in stems)
        is_split = nested and "train" in {SPLIT_NAMES.get(top) for top in tops}
        is_split = is_split and tops <= SPLIT_NAMES.keys()
        for number, (stem, kinds) in enumerate(stems.items(), start=1):
            values: dict[str, object] = {k: f for k, f in kinds.items() if k != "text"}
            values["text"] = Sidecar(str(path / kinds["text"])) if "text" in kinds else None
            split = Path(stem).parts[0] if is_split else None
            yield Row(str(path), number, values, split=split, base=str(path))


def _files(root: Path) -> Iterator[str]:
    """Paths relative to `root`, in order of name."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for file in sorted(f for f in files if not f.startswith(".")):
            yield os.path.relpath(os.path.join(folder, file), root)
