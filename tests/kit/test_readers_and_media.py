"""Every registered reader and medium passes the kit."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz.readers import furnish, picture

from fusemix_core.data.matrices import MatrixReader
from fusemix_core.registry import registry
from fusemix_core.testing import check_medium, check_reader

ROWS = [{"image": f"{i}.png", "text": f"caption {i}"} for i in range(6)]


def delimited(folder):
    path = folder / "pairs.csv"
    path.write_text("image,text\n" + "".join(f"{r['image']},{r['text']}\n" for r in ROWS))
    return path


def jsonl(folder):
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def json_list(folder):
    path = folder / "pairs.json"
    path.write_text(json.dumps(ROWS))
    return path


def parquet(folder):
    path = folder / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def shards(folder):
    path = folder / "pairs.tar"
    with tarfile.open(path, "w") as archive:
        for i in range(6):
            for name, data in ((f"{i}.png", picture(i)), (f"{i}.txt", b"caption")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def folder(folder):
    path = folder / "photos"
    path.mkdir()
    furnish(path)
    for i in range(6):
        (path / f"{i}.txt").write_text(f"caption {i}")
    return path


def saved(folder):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "saved")
    return folder / "saved"


def matrix(folder):
    return MatrixReader.sample(folder)


SOURCES = {
    "delimited": delimited, "jsonl": jsonl, "json": json_list, "parquet": parquet,
    "shards": shards, "folder": folder, "saved": saved, "matrix": matrix,
}  # fmt: skip


@pytest.mark.parametrize("name", [spec.name for _, spec in registry.all_components("reader")])
def test_a_reader_keeps_its_contract(name, tmp_path):
    check_reader(name, SOURCES[name](tmp_path)).raise_if_failed()


@pytest.mark.parametrize("name", [spec.name for _, spec in registry.all_components("medium")])
def test_a_medium_keeps_its_contract(name):
    check_medium(name).raise_if_failed()
