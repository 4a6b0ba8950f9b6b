"""The table of items that workers read: what comes back, and what it takes."""

from __future__ import annotations

import os
import time
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from fusemix_ray import table as table_module
from fusemix_ray.table import NAME, Table, read_block, strays

from fusemix_core.data.arrow_texts import Texts
from fusemix_core.data.items import Items, Origin
from fusemix_core.data.parquet import ParquetCells
from fusemix_core.data.references import (
    CellReference,
    FileReference,
    HeldReference,
    SliceReference,
)
from fusemix_core.errors import ArtefactError


def items_of(references, takes="image", files=("a.csv", "b.csv")):
    count = len(references)
    keys = np.random.default_rng(0).integers(0, 2**64, (count, 2), np.uint64)
    origin = Origin(files, np.arange(count) % len(files), np.arange(count) + 1)
    return Items("image", takes, references, keys, origin)


def test_every_kind_of_reference_comes_back(tmp_path):
    cells = [ParquetCells(str(tmp_path / "a.parquet")), ParquetCells(str(tmp_path / "b.parquet"))]
    items = items_of(
        [
            "a text\n with \u00fc",
            "",
            FileReference("/shared/1.png"),
            FileReference("/shared/\udcff.png"),  # a name that is not UTF-8
            SliceReference("/shared/x.tar", 512, 1 << 40, "2.png"),
            CellReference(cells[0], "image", 7),
            CellReference(cells[1], "photo", 0),
            HeldReference(b"\0\xff", "row 3"),
        ],
        files=("/shared/a.csv", "/shared/\udcfe.csv"),
    )
    blocks = [np.array([0, 2, 3, 6]), np.array([7, 1]), np.array([5, 4])]
    with Table(tmp_path) as table:
        table.write(items, blocks)
    given = list(table.cells)
    for number, block in enumerate(blocks):
        found = read_block(str(table.path), number, "image", "image", given)
        wanted = items.select(block)
        assert list(found.references) == list(wanted.references)
        assert np.array_equal(found.keys, wanted.keys)
        assert [found.origin[i] for i in range(len(block))] == [
            wanted.origin[i] for i in range(len(block))
        ]
        assert (found.modality, found.takes) == ("image", "image")


@pytest.mark.slow
def test_writing_takes_the_memory_of_one_block_however_many_there_are(tmp_path):
    peaks = []
    for count in (10_000, 80_000):
        texts = Texts(
            [pa.array([f"text {i}" for i in range(k, k + 5000)]) for k in range(0, count, 5000)]
        )
        items = items_of(texts, takes="text")
        blocks = np.split(np.arange(count), range(5000, count, 5000))
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        with Table(tmp_path) as table:
            table.write(items, blocks)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert pa.total_allocated_bytes() - before < 1 << 20
    assert peaks[1] < 1.2 * peaks[0]


def test_a_table_that_can_not_be_written_says_where(tmp_path):
    with pytest.raises(ArtefactError, match="The table .* can't be written"):
        Table(tmp_path / "missing").__enter__()


def test_only_tables_that_nobody_uses_are_cleared(tmp_path, monkeypatch):
    for name in ("old", "used", "new"):
        (tmp_path / f".ray-{name}").mkdir()
        (tmp_path / f".ray-{name}" / NAME).touch()
    long_ago = time.time() - 2 * 86400
    with Table(tmp_path / ".ray-used"):
        for name in ("old", "used"):
            os.utime(tmp_path / f".ray-{name}" / NAME, (long_ago, long_ago))
        assert strays(tmp_path) == [tmp_path / ".ray-old"]
    assert strays(tmp_path) == [tmp_path / ".ray-old", tmp_path / ".ray-used"]
    monkeypatch.setattr(table_module, "_UNUSED", 3 * 86400)
    assert strays(tmp_path) == []
