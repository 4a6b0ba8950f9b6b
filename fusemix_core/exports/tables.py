"""The exports `parquet` and `embedding-atlas`: embeddings of data beside what is known of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.codes import CodeType
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError
from fusemix_core.exports.base import Exporter, ExportSource
from fusemix_core.runs.models import embed_for, encode_for
from fusemix_core.runs.reading import read_usable

if TYPE_CHECKING:
    import pyarrow

KEY = "key"
_TILE = 2_048
"""Rows compared with all others at a time."""


@dataclass(frozen=True)
class Embedded:
    """The items of one modality: `rows` `[n, d]`, `ids` `[n]` in the dataset, `first` `[n]` the row
    of the dataset in which each comes first."""

    modality: str
    rows: Tensor
    ids: np.ndarray
    first: np.ndarray


def embedded(source: ExportSource) -> tuple[PairedDataset, list[Embedded]]:
    """The data, and the embeddings of its items by modality."""
    assert source.data is not None  # which `check_source` saw to
    model, reporter = source.model, source.reporter
    takes = {m: info.takes for m, info in model.encoders.items()}
    dataset = read_usable(source.data, takes, source.seed, tell=reporter.note, optional=takes)
    reporter.stage("Encoding")
    pairs = encode_for(model, dataset, reporter, source.data.max_bad).paired()
    found = embed_for(model, pairs)
    parts = []
    for column, modality in enumerate(found.embeddings):
        own = found.links[:, column].numpy()
        _, first = np.unique(own[own >= 0], return_index=True)
        rows = np.flatnonzero(own >= 0)[first]
        ids = found.ids[modality].numpy()
        parts.append(Embedded(modality, found.embeddings[modality], ids, rows))
    return dataset, parts


class ParquetExporter(Exporter):
    """A Parquet file for each modality: `key`, `item`, `vector`, and the facts of the data.

    Args:
        form: `gallery` or `query`: vectors for an index of inner products. Empty: the embeddings.
        dims: leading dimensions; 0 for all.
        dtype: `float32` or `float16`.
    """

    uses = ("data",)

    def __init__(self, *, form: str = "gallery", dims: int = 0, dtype: str = "float32") -> None:
        if form not in ("gallery", "query", "") or dtype not in ("float32", "float16"):
            raise ConfigError(
                f"The export 'parquet' can't have form={form!r} and dtype={dtype!r}.",
                "form is gallery, query or empty; dtype is float32 or float16.",
            )
        self.form, self.dims, self.dtype = form, dims, dtype

    def write(self, source: ExportSource, folder: Path) -> Sequence[str]:
        import pyarrow.parquet

        dataset, parts = embedded(source)
        how: dict[str, Any] = {"form": self.form or None, "dim": self.dims or None}
        dtype: CodeType = "float16" if self.dtype == "float16" else "float32"
        for part in parts:
            vectors = source.model.convert(part.rows, part.modality, dtype=dtype, **how)
            columns = _columns(dataset, part) | {"vector": _lists(vectors.numpy())}
            table = pyarrow.table(columns)
            pyarrow.parquet.write_table(table, folder / f"{part.modality}.parquet")
        ranks = f"by the scorer {source.model.scorer_name}" if self.form else "by cosine"
        return [f"Inner products of `vector` rank {ranks}: {{out}}/{parts[0].modality}.parquet"]


class EmbeddingAtlasExporter(Exporter):
    """One Parquet file for [Embedding Atlas](https://github.com/apple/embedding-atlas): all items
    with `vector`, a map (`projection_x`, `projection_y`), `neighbors`, and the facts of the data.

    The map shows the two principal axes of the embeddings, each modality about its own mean, so
    that modalities lie on one another. Neighbours are the nearest by cosine, of any modality.

    Args:
        neighbours: how many each item gets.
    """

    uses = ("data",)

    def __init__(self, *, neighbours: int = 15) -> None:
        if neighbours < 1:
            raise ConfigError(f"neighbours is {neighbours}; it is 1 or more.")
        self.neighbours = neighbours

    def write(self, source: ExportSource, folder: Path) -> Sequence[str]:
        import pyarrow as pa
        import pyarrow.parquet

        dataset, parts = embedded(source)
        tables = [
            pa.table({"modality": [p.modality] * len(p.ids), **_columns(dataset, p)}) for p in parts
        ]
        rows = torch.cat([part.rows for part in parts])
        at = projected([part.rows for part in parts])
        ids, distances = nearest(rows, min(self.neighbours, len(rows) - 1))
        neighbours = pa.StructArray.from_arrays(
            [_lists(ids.numpy()), _lists(distances.numpy())], names=["ids", "distances"]
        )
        added = {
            "vector": _lists(rows.numpy()),
            "projection_x": at[:, 0].numpy(),
            "projection_y": at[:, 1].numpy(),
            "neighbors": neighbours,
        }
        table = pa.concat_tables(tables)
        for name, values in added.items():
            table = table.append_column(name, pa.array(values))
        pa.parquet.write_table(table, folder / "items.parquet")
        return [
            "embedding-atlas {out}/items.parquet --text item --vector vector \\\n"
            "    --x projection_x --y projection_y --neighbors neighbors"
        ]


def projected(parts: Sequence[Tensor]) -> Tensor:
    """The places `[n, 2]` of all rows on their two principal axes, each part about its mean."""
    centred = torch.cat([rows - rows.mean(0) for rows in parts]).double()
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -2:].flip(1)
    return (centred @ axes).float()


def nearest(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Of each unit-norm row the `count` nearest others: their numbers, int64, and 1 - cosine."""
    ids, distances = [], []
    for start in range(0, len(rows), _TILE):
        part = rows[start : start + _TILE]
        cosines = part @ rows.T
        own = torch.arange(len(part))
        cosines[own, start + own] = -torch.inf
        top = cosines.topk(count, dim=1)
        ids.append(top.indices)
        distances.append((1 - top.values).clamp(min=0))
    return torch.cat(ids), torch.cat(distances)


def _columns(dataset: PairedDataset, part: Embedded) -> dict[str, Any]:
    """`key`, `item`, and the facts of the row in which each item comes first."""
    items = dataset.items[part.modality]
    keys = [f"{a:016x}{b:016x}" for a, b in items.keys[part.ids]]
    columns: dict[str, Any] = {KEY: keys, "item": [items.describe(int(i)) for i in part.ids]}
    for name, fact in dataset.facts.items():
        column = name if name not in (*columns, "vector", "modality") else f"{name}_of_row"
        columns[column] = list(_values(fact, part.first))
    return columns


def _values(fact: Fact, rows: np.ndarray) -> Iterator[Any]:
    """The values of a fact in rows as Python has them, None where missing."""
    for value, absent in zip(fact.values[rows], fact.missing[rows], strict=True):
        if absent:
            yield None
        elif fact.kind in ("class", "text"):
            yield fact.names[int(value)]
        else:
            yield value.tolist()


def _lists(values: np.ndarray) -> pyarrow.Array:
    """A matrix as a column of lists, all of one length."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
