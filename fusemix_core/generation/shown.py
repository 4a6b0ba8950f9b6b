"""How the evaluator `generation` shows what it found."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from fusemix_core.sections import Cell, Figure, Section, Share, Table, Tile

_TILES, _SIDE, _GAP = 8, 64, 4


def section_of(modality: str, metrics: Mapping[str, Any], strip: bytes | None) -> Section:
    """The section of one modality."""
    found = metrics["modalities"][modality]
    columns = [
        "drawn from",
        "R@1",
        "R@5",
        "R@10",
        f"right of {found['classes']}",
        "IIS",
        "AIS",
        "KID",
        "diversity",
        "copies",
    ]
    names = {"real": "nothing: real images", modality: f"the {modality}"}
    names |= {"text": "its text", "nearest text": "the nearest text"}
    names |= {"shuffled": f"another {modality}"}
    new = {"copies": metrics["held_out_distance"]}
    rows = [
        [names[name], *_cells(row | new if name == "real" else row)]
        for name, row in found["rows"].items()
        if row
    ]
    text = (
        f"{metrics['generator']} draws {metrics['images_per_item']} images from each of "
        f"{found['items']} items. {metrics['judge']}, which had no part in it, says which of "
        f"{metrics['concepts']} concepts each image shows (R@k), and which of the "
        f"{found['classes']} that the items have."
    )
    note = (
        "Real images are the judge's own limit; drawing from another item is the floor. IIS, AIS: "
        "how often the own real image, or the own item, is closer than another's, in percent. "
        "KID: distance to real images, comparable for one judge only. Diversity: between images of "
        "one item. Copies: distance to the nearest image that was trained on; for real images, "
        f"that of new ones.{_compared(modality, found)}{_skipped(found)}"
    )
    own = found["rows"][modality]
    tile = Tile(
        f"{modality} → {metrics['generator']}",
        Share(own["r1"], own["r1_interval"]),
        f"R@1 of {metrics['concepts']}; text {found['rows']['text']['r1']:.0f}%",
    )
    figures = [_figure(strip, modality)] if strip else []
    return Section(
        f"Generation from {modality}",
        text,
        tables=[Table(columns, rows)],
        figures=figures,
        note=note,
        headline=[tile],
    )


def _cells(row: Mapping[str, Any]) -> list[Cell]:
    shares: list[Cell] = [
        Share(row[name], row[f"{name}_interval"]) for name in ("r1", "r5", "r10", "accuracy")
    ]
    rates: list[Cell] = [
        None if row.get(name) is None else round(row[name], 1) for name in ("iis", "ais")
    ]
    return [*shares, *rates, *(_rounded(row.get(n)) for n in ("kid", "diversity", "copies"))]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _compared(modality: str, found: Mapping[str, Any]) -> str:
    said = ""
    if found["of_text"] is not None:
        bounds = found["of_text_interval"]
        shown = f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds else ""
        said += f" R@1 from the {modality} is {found['of_text']:.2f}{shown} times that of its text"
    bounds = found["ahead_of_nearest_interval"]
    shown = f" [{bounds[0]:.0f}, {bounds[1]:.0f}]" if bounds else ""
    ahead = f"{found['ahead_of_nearest']:+.0f}{shown} points against the nearest text."
    return f"{said}, and {ahead}" if said else f" R@1: {ahead}"


def _skipped(found: Mapping[str, Any]) -> str:
    if not found["skipped"]:
        return ""
    return f" {found['skipped']} items are left out: there is no real image of their concept."


def _figure(strip: bytes, modality: str) -> Figure:
    return Figure(
        strip,
        title="What was drawn",
        caption=(
            "One item per column. From the top: drawn from its text, from the "
            f"{modality}, from the nearest text, from another {modality}."
        ),
        alt=f"Images generated from {modality}, in four rows by their source",
        height=220,
    )


def strip_of(drawn: Sequence[Sequence[Any]], concepts: Tensor, count: int) -> bytes:
    """A PNG: a row for each of `drawn`, a column for the first item of each of some concepts.

    Args:
        drawn: for each row its images, `count` per item in turn.
        concepts: int64 `[n]`, of the items.
        count: images per item.
    """
    seen: dict[int, int] = {}
    for item, concept in enumerate(concepts.tolist()):
        seen.setdefault(concept, item)
    columns = list(seen.values())[:_TILES]
    step = _SIDE + _GAP
    size = (step * len(columns) - _GAP, step * len(drawn) - _GAP)
    sheet = Image.new("RGB", size, "white")
    for row, images in enumerate(drawn):
        for column, item in enumerate(columns):
            image = images[item * count].convert("RGB").resize((_SIDE, _SIDE))
            sheet.paste(image, (column * step, row * step))
    kept = io.BytesIO()
    sheet.save(kept, "PNG")
    return kept.getvalue()
