"""The items of an index as files for a browser: vectors, columns, a map, small images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from fusemix_core.runs.reporter import Reporter
from fusemix_serve.files import TYPES, thumbnail
from fusemix_serve.gallery import Gallery
from fusemix_serve.replies import Refused
from fusemix_serve.web.scores import probe, shift

PART = 16 << 20
"""Bytes of the largest file: some hosts take no larger ones."""
_AT_ONCE = 4096
_PIXELS = 100_000_000


def write_parts(path: Path, content: bytes) -> int:
    """Write bytes as `NAME.0`, `NAME.1`, … of at most `PART`; how many bytes there are."""
    for i, start in enumerate(range(0, max(1, len(content)), PART)):
        path.with_name(f"{path.name}.{i}").write_bytes(content[start : start + PART])
    return len(content)


def write_vectors(gallery: Gallery, folder: Path, dtype: str, slopes: Mapping[str, float]) -> dict:
    """Write `codes`, `scales`, `added` and `shifts`, each in the order of the map.

    A number of a vector is its code times the vector's scale. `added` are the columns that the
    scorer adds to items, `shifts` what an item, as a query, adds to its scores for each target.

    Args:
        gallery: the collection.
        folder: where.
        dtype: of the codes, `int8` or `int16`.
        slopes: "QUERY>TARGET" → slope of the scores.

    Returns:
        name → bytes.
    """
    collection, model = gallery.collection, gallery.model
    asks, targets = list(collection.query_modalities), list(collection.modalities)
    found: dict[str, list[np.ndarray]] = {}
    one = probe(model.dim)
    for modality, keys in _chunks(gallery):
        rows = collection.vectors(keys)
        lifted = model.scorer.lift(rows, modality, asks, gallery=True)
        codes, scales = coded(rows.numpy(), dtype)
        as_query = modality if modality in asks else asks[0]
        shifts = [
            shift(model.scorer, rows, as_query, target, asks, slopes[f"{as_query}>{target}"], one)
            for target in targets
        ]
        parts = {
            "codes": codes,
            "scales": scales,
            "added": lifted[:, model.dim :].numpy().astype("<f4"),
            "shifts": torch.stack(shifts, dim=1).numpy().astype("<f4"),
        }
        for name, values in parts.items():
            found.setdefault(name, []).append(values)
    return {
        name: write_parts(folder / name, b"".join(map(np.ndarray.tobytes, values)))
        for name, values in found.items()
    }


def coded(rows: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """(whole numbers `[n, d]`, float32 `[n]` what one of them is worth) of vectors."""
    most = np.iinfo(dtype).max
    scales = np.abs(rows).max(axis=1).clip(1e-12) / most
    codes = np.rint(rows / scales[:, None]).clip(-most, most)
    return codes.astype(np.dtype(dtype).newbyteorder("<")), scales.astype("<f4")


def write_items(gallery: Gallery, folder: Path, media: bool, reporter: Reporter) -> dict[str, Any]:
    """Write `items.json`, a list for each field, and the images.

    Args:
        gallery: the collection.
        folder: where.
        media: whether images and sounds are copied as they are, too.
        reporter: gets what can't be read.

    Returns:
        modality → how many items it has, in the order of the map.
    """
    names = list(gallery.collection.columns)
    fields: dict[str, list[Any]] = {name: [] for name in ("key", "item", "text", "thumb", "media")}
    columns: dict[str, list[Any]] = {name: [] for name in names}
    counts: dict[str, int] = {}
    (folder / "thumbs").mkdir()
    if media:
        (folder / "media").mkdir()
    lost = 0
    for modality, keys in _chunks(gallery):
        counts[modality] = counts.get(modality, 0) + len(keys)
        for record in gallery.records(keys):
            thumb, copied = _files(gallery, record, folder, media)
            lost += record["thumb"] is not None and thumb is None
            own = record | {"thumb": thumb, "media": copied}
            for name, values in fields.items():
                values.append(own[name])
            for name, values in columns.items():
                values.append(record["columns"].get(name))
    if lost:
        reporter.note(f"{lost:,} images can't be read; the page shows their names only.")
    text = json.dumps(fields | {"columns": columns}, ensure_ascii=False, separators=(",", ":"))
    (folder / "items.json").write_text(text, encoding="utf-8")
    return counts


def _files(
    gallery: Gallery, record: Mapping[str, Any], folder: Path, media: bool
) -> tuple[str | None, str | None]:
    """Write the files of an item; their names below `folder`."""
    thumb = copied = None
    key = record["key"]
    if record["thumb"] is not None:
        try:
            data = thumbnail(gallery, key, _PIXELS)
        except Refused:
            return None, None
        thumb = f"thumbs/{key}.webp"
        (folder / thumb).write_bytes(data)
    suffix = PurePath(record["item"]).suffix.lower()
    if media and record["media"] is not None and suffix in TYPES:
        found = gallery.collection.media(key)
        copied = f"media/{key}{suffix}"
        if isinstance(found, Path):
            shutil.copyfile(found, folder / copied)
        elif isinstance(found, bytes):
            (folder / copied).write_bytes(found)
    return thumb, copied


def _chunks(gallery: Gallery) -> Iterator[tuple[str, Sequence[str]]]:
    """(modality, keys) of some items at a time, in the order of the map."""
    keys, modalities = gallery.now.keys, gallery.now.modalities
    start = 0
    while start < len(keys):
        end = min(start + _AT_ONCE, len(keys))
        other = np.flatnonzero(modalities[start:end] != modalities[start])
        end = start + int(other[0]) if len(other) else end
        yield str(modalities[start]), keys[start:end]
        start = end
