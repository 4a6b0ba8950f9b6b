"""Parquet files and Lance tables."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult

import pyarrow as pa

from fusemix_stores.rows import Source

SUFFIXES = {"parquet": ".parquet", "lance": ".lance"}


def send_parquet(source: Source, url: SplitResult) -> list[str]:
    """Write a Parquet file, whole or not at all; lines on how to read it."""
    import pyarrow.parquet as pq

    path = Path(url.netloc + url.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with pq.ParquetWriter(temporary, schema := _schema(source)) as writer:
            for batch in _batches(source, schema):
                writer.write_batch(batch)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return [f'pyarrow.parquet.read_table("{path}")  # column vector: inner product']


def send_lance(source: Source, url: SplitResult) -> list[str]:
    """Write a Lance table; one that is there gets a new version. Lines on how to search it.

    `lance://folder/table.lance` is a folder on this disk. `lance+s3://bucket/table.lance` is an
    object store's.
    """
    import lance

    scheme = url.scheme.partition("+")[2]
    where = f"{scheme}://{url.netloc}{url.path}" if scheme else url.netloc + url.path
    schema = _schema(source)
    reader = pa.RecordBatchReader.from_batches(schema, _batches(source, schema))
    lance.write_dataset(reader, where, mode="overwrite")
    return [
        f'lance.dataset("{where}").to_table(',
        '    nearest={"column": "vector", "q": q, "k": 10, "metric": "dot"})',
    ]


def _schema(source: Source) -> pa.Schema:
    own = {"number": pa.float64(), "text": pa.string()}
    columns = [(name, own[kind]) for name, kind in source.columns.items()]
    fixed = [("key", pa.string()), ("modality", pa.string()), ("item", pa.string())]
    vector = ("vector", pa.list_(pa.float32(), source.width))
    facts = {"fusemix": json.dumps(source.facts)}
    return pa.schema([*fixed, *columns, vector], metadata=facts)


def _batches(source: Source, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for rows in source.rows():
        flat = pa.array(rows.vectors.ravel())
        vectors = pa.FixedSizeListArray.from_arrays(flat, rows.vectors.shape[1])
        columns = {"key": pa.array(rows.keys), "vector": vectors}
        for name in schema.names:
            if name not in columns:
                kind = schema.field(name).type
                columns[name] = pa.array([one.get(name) for one in rows.fields], kind)
        yield pa.record_batch([columns[name] for name in schema.names], schema=schema)
