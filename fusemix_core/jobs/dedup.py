"""Finding items of one modality that are the same, or nearly, and which of them to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fusemix_core.config import DataConfig
from fusemix_core.data.items import Items
from fusemix_core.data.original import TableWriter, original_columns, original_rows
from fusemix_core.data.reading import NO_TRUST
from fusemix_core.devices import resolve_device
from fusemix_core.errors import ConfigError
from fusemix_core.evaluation.similar import THRESHOLD, Similar, centred_rows, kept_of, similar
from fusemix_core.fused import FusedModel
from fusemix_core.reports.gallery import MOST, Case, CaseGroup, CaseItem, GalleryPage, write_gallery
from fusemix_core.runs.encode import Encoded, Encoding, encode_dataset
from fusemix_core.runs.models import encode_for
from fusemix_core.runs.notices import Notices
from fusemix_core.runs.reading import read_usable
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.suspects import compared_ids
from fusemix_core.sections import Tile
from fusemix_core.specs import EncoderSpec

Keep = Literal["largest", "first"]
KEEP: tuple[Keep, ...] = ("largest", "first")

_SHOWN = 8
"""Rows of a group that the page shows."""
_COLUMNS = ("group", "keep", "file", "row", "item", "similarity", "bytes")
_KINDS = {"group": int, "row": int, "similarity": float, "bytes": int}


@dataclass(frozen=True)
class Member:
    """A row of a group.

    Attributes:
        file, row: its place in the data.
        item: its path or text.
        number: that of its item in the dataset; rows with the same bytes have the same.
        similarity: to the one that is kept.
        size: bytes.
    """

    file: str
    row: int
    item: str
    number: int
    similarity: float
    size: int


@dataclass
class Deduplicated:
    """Groups of rows that each need one member only.

    Attributes:
        groups: the rows of each; the first is kept. The largest groups first.
        rows: how many rows were compared.
        items: their items.
        notices: what became of the rows, and warnings.
    """

    groups: list[list[Member]]
    rows: int
    items: Items
    config: DataConfig
    notices: dict[str, Any] = field(default_factory=dict)

    @property
    def dropped(self) -> set[tuple[str, int]]:
        """(file, row) of all that are not needed."""
        return {(one.file, one.row) for group in self.groups for one in group[1:]}

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for `--json`."""
        groups = [
            [{"file": m.file, "row": m.row, "item": m.item, "similarity": m.similarity,
              "bytes": m.size, "keep": not i} for i, m in enumerate(group)]
            for group in self.groups
        ]  # fmt: skip
        counts = {"compared": self.rows, "dropped": len(self.dropped)}
        return {**counts, "groups": groups, **self.notices}

    def write(self, path: str | Path) -> None:
        """Write the groups as a table, one row of the data per line."""
        with TableWriter(path, _COLUMNS, _KINDS) as table:
            for number, group in enumerate(self.groups, start=1):
                lines = [
                    (number, "no" if i else "yes", m.file, m.row, m.item, m.similarity, m.size)
                    for i, m in enumerate(group)
                ]
                table.write([dict(zip(_COLUMNS, line, strict=True)) for line in lines])

    def write_kept(self, path: str | Path) -> None:
        """Write the rows of the data that are kept, with all their columns. Paths stay as they
        are: put the table where the one before is."""
        dropped = self.dropped
        with TableWriter(path, original_columns(self.config)) as table:
            table.write_all(
                cells
                for file, row, cells in original_rows(self.config)
                if (file, row) not in dropped
            )

    def write_page(self, path: str | Path) -> Path:
        """Write a page that shows the groups."""
        cases = [self._case(group) for group in self.groups[:MOST]]
        text = "The first of each group is kept."
        if len(self.groups) > MOST:
            text += f" {MOST} of {len(self.groups):,} groups are shown."
        tiles = [
            Tile("rows", self.rows),
            Tile("groups", len(self.groups)),
            Tile("rows not needed", len(self.dropped)),
        ]
        groups = [CaseGroup("Groups", text, cases)]
        notes = self.notices.get("warnings", ())
        return write_gallery(path, GalleryPage("Near-duplicates", "", tiles, notes, groups=groups))

    def _case(self, group: Sequence[Member]) -> Case:
        shown = [
            CaseItem(
                "kept" if not i else f"row {m.row}, similarity {m.similarity:.3f}",
                self.items.show(m.number),
            )
            for i, m in enumerate(group[:_SHOWN])
        ]
        more = f", {len(group) - _SHOWN:,} of them not shown" if len(group) > _SHOWN else ""
        first = group[0]
        return Case(f"{first.file}, row {first.row}", f"{len(group):,} rows{more}.", shown)


def dedup(
    config: DataConfig,
    encoder: EncoderSpec | tuple[FusedModel, str],
    *,
    threshold: float = THRESHOLD,
    keep: Keep = "largest",
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Deduplicated:
    """Group the rows of a dataset whose items of one modality are the same, or nearly.

    Items are compared by the latents of one encoder, all with each other: a fused space brings
    together whatever is described alike. In each group every item is near to the one that is kept.

    Args:
        config: the data.
        encoder: what encodes the items; or a fused model and one of its modalities.
        threshold: the cosine of centred latents from which on items are near-duplicates.
        keep: of a group the `largest` item in bytes, or the `first` in the data. Of equals the
            first.
        device: where to encode.
        reporter: gets the progress.

    Raises:
        FusemixError: the data, or the encoder, can't be used.

    Example:
        found = dedup(DataConfig(("photos",)), registry.encoder("efficientnet-lite0"))
        found.write("duplicates.csv")
    """
    if keep not in KEEP:
        raise ConfigError(f"'{keep}' can't be kept.", f"Choices: {', '.join(KEEP)}.")
    reporter = reporter or Reporter()
    config, encoded = _encoded(config, encoder, device, reporter)
    dataset, (modality,) = encoded.dataset, encoded.dataset.modalities
    ids = compared_ids(dataset, modality)
    reporter.stage(f"Comparing {len(ids):,} items")
    found = similar(centred_rows(encoded.tables[modality], ids), threshold)
    items, numbers = dataset.items[modality], ids.numpy()
    rows: dict[int, list[int]] = {}
    column = dataset.links[:, 0]
    for row in np.argsort(column, kind="stable").tolist():
        rows.setdefault(int(column[row]), []).append(row)
    grouped = _grouped(found, items, numbers, rows, keep)
    names = _names(config, dataset.columns.get(modality, ()), dataset, grouped, rows)
    groups = []
    for best, members in grouped.items():
        of = {best: 1.0} | dict(members)
        groups.append(
            [
                Member(*dataset.origin[row], names[dataset.origin[row]] or items.describe(item),
                       item, round(of[item], 4), _size(items, item))
                for item in of for row in rows[item]
            ]
        )  # fmt: skip
    groups.sort(key=lambda group: -len(group))
    notices = Notices.of(dataset, encoded.warnings).as_dict()
    return Deduplicated(groups, len(dataset), items, config, notices)


def _encoded(
    config: DataConfig,
    encoder: EncoderSpec | tuple[FusedModel, str],
    device: str,
    reporter: Reporter,
) -> tuple[DataConfig, Encoded]:
    """(the data as they are read, their latents of the one modality)."""
    modality = encoder.modality if isinstance(encoder, EncoderSpec) else encoder[1]
    takes = (
        encoder.takes if isinstance(encoder, EncoderSpec) else encoder[0].encoders[modality].takes
    )
    config = replace(
        config,
        columns={m: c for m, c in config.columns.items() if m == modality},
        facts={},
        trust_column=NO_TRUST,
        validation_fraction=0.0,
        test_fraction=0.0,
    )
    how: dict[str, Any] = {"least": 1, "repeats": True}
    dataset = read_usable(config, {modality: takes}, tell=reporter.note, **how)
    if not isinstance(encoder, EncoderSpec):
        return config, encode_for(encoder[0], dataset, reporter, config.max_bad)
    how = {"max_bad": config.max_bad}
    where = Encoding(resolve_device(device))
    return config, encode_dataset(dataset, {modality: encoder}, where, reporter, **how)


def _grouped(
    found: Similar, items: Items, numbers: np.ndarray, rows: Mapping[int, list[int]], keep: Keep
) -> dict[int, list[tuple[int, float]]]:
    """Item that is kept → (item, similarity) of those that go; none for an item that only has rows
    with the same bytes."""
    near = np.unique(found.pairs)
    size = {int(i): _size(items, int(numbers[i])) if keep == "largest" else 0 for i in near}
    order = sorted(near.tolist(), key=lambda i: (-size[i], rows[int(numbers[i])][0]))
    kept = kept_of(found, order, len(numbers))
    cosine = {
        (i, j): c for (i, j), c in zip(found.pairs.tolist(), found.cosines.tolist(), strict=True)
    }
    groups: dict[int, list[tuple[int, float]]] = {}
    for i in near.tolist():
        if (best := int(kept[i])) != i:
            similarity = cosine[min(i, best), max(i, best)]
            groups.setdefault(int(numbers[best]), []).append((int(numbers[i]), similarity))
    replaced = {other for members in groups.values() for other, _ in members}
    for item, own in rows.items():
        if item >= 0 and len(own) > 1 and item not in replaced:
            groups.setdefault(item, [])
    return groups


def _names(
    config: DataConfig,
    columns: Sequence[str],
    dataset: Any,
    grouped: Mapping[int, Sequence[tuple[int, float]]],
    rows: Mapping[int, list[int]],
) -> dict[tuple[str, int], str]:
    """(file, row) → the cell of the item, of the rows in groups; "" if it isn't a text."""
    wanted = {
        dataset.origin[row]
        for best, members in grouped.items()
        for item in [best, *(other for other, _ in members)]
        for row in rows[item]
    }
    names = dict.fromkeys(wanted, "")
    for file, row, cells in original_rows(config) if wanted else ():
        if (file, row) in wanted:
            value = next((cells[c] for c in columns if cells.get(c)), "")
            names[file, row] = value if isinstance(value, str) else ""
    return names


def _size(items: Items, item: int) -> int:
    """The bytes of an item; 0 if it can't be read."""
    try:
        return len(items.read_bytes(item))
    except OSError:
        return 0
