"""The exports `parquet` and `embedding-atlas`: embeddings of data beside what is known of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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

    from fusemix_core.search import Collection

KEY = "key"
_OWN = ("modality", "vector", "projection_x", "projection_y", "neighbors")
_TILE = 2_048
"""Rows compared with all others at a time."""


@dataclass(frozen=True)
class Embedded:
    """The items of one modality: `rows` `[n, d]` of unit norm, and `columns` of n values each."""

    modality: str
    rows: Tensor
    columns: Mapping[str, list[Any]]


def embedded(source: ExportSource) -> list[Embedded]:
    """The embeddings of the items by modality, with `key`, `item`, and what is known of them."""
    if source.collection is not None:
        return [_of_index(source.collection, m) for m in source.collection.modalities]
    return _of_data(source)


def _of_index(collection: Collection, modality: str) -> Embedded:
    keys = collection.keys(modality)
    found = collection.items(keys)
    columns: dict[str, list[Any]] = {KEY: keys, "item": [one.item for one in found]}
    for name in collection.columns:
        columns[_free(name, columns)] = [one.columns[name] for one in found]
    return Embedded(modality, collection.vectors(keys), columns)


def _of_data(source: ExportSource) -> list[Embedded]:
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
        columns = _columns(dataset, modality, ids, rows)
        parts.append(Embedded(modality, found.embeddings[modality], columns))
    return parts


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

        parts = embedded(source)
        how: dict[str, Any] = {"form": self.form or None, "dim": self.dims or None}
        dtype: CodeType = "float16" if self.dtype == "float16" else "float32"
        for part in parts:
            vectors = source.model.convert(part.rows, part.modality, dtype=dtype, **how)
            table = pyarrow.table({**part.columns, "vector": _lists(vectors.numpy())})
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

        parts = embedded(source)
        tables = [pa.table({"modality": [p.modality] * len(p.rows), **p.columns}) for p in parts]
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
        table = pa.concat_tables(tables, promote_options="permissive")
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


def _columns(
    dataset: PairedDataset, modality: str, ids: np.ndarray, rows: np.ndarray
) -> dict[str, list[Any]]:
    """`key` and `item` of the items `ids`, and the facts of the row in which each comes first."""
    items = dataset.items[modality]
    keys = [key.tobytes().hex() for key in items.keys[ids].astype("<u8")]
    columns: dict[str, list[Any]] = {KEY: keys, "item": [items.describe(int(i)) for i in ids]}
    for name, fact in dataset.facts.items():
        columns[_free(name, columns)] = list(_values(fact, rows))
    return columns


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """A name for a column of the user's that no column of the export has."""
    return f"{name}_of_row" if name in taken or name in _OWN else name


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
