"""Indexes in real engines: each finds exactly what the index finds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from uuid import UUID

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import toys
import typer
from fusemix_stores import fusemix_commands, query_vector, send
from PIL import Image
from typer.testing import CliRunner

from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.cli.index import app as index_app
from fusemix_core.config import DataConfig
from fusemix_core.errors import ArtefactError, ConfigError, MissingDependencyError, UnknownNameError
from fusemix_core.fused import EncoderInfo, FusedModel
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import registry
from fusemix_core.scorers.csls import CSLSScorer
from fusemix_core.search import Collection

TOYS = {"image": toys.ToyImage, "text": toys.ToyText}
WIDTH = 6
QUERIES = ["a red map", "the sea at night", "two dogs"]


@pytest.fixture(scope="module")
def named():
    return {m: f"{toys.__file__}:{toy.__name__}" for m, toy in TOYS.items()}


@pytest.fixture(scope="module")
def collection(tmp_path_factory, named):
    """40 images with a text, a year and a kind each, one of them without."""
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0)
    lines = ["image,text,year,item"]
    for i in range(40):
        pixels = noise.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(f"{i}.png,text {i} of a {'map' if i % 2 else 'dog'},{1990 + i},kind {i % 3}")
    lines[5] = lines[5].rsplit(",", 2)[0] + ",,"
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    data = DataConfig((str(folder / "pairs.csv"),))
    return Collection.create(folder / "index", fused(named), data)


def fused(named):
    torch.manual_seed(0)
    encoders = {m: TOYS[m](registry.encoder(named[m])) for m in TOYS}
    infos = {
        m: EncoderInfo.of(
            e.spec,
            modality=m,
            dim=e.spec.dim,
            fingerprint=fingerprint(e.spec, "float32", e.weights_digest),
            view="pooled",
        )
        for m, e in encoders.items()
    }
    adapters = {m: LinearAdapter(e.spec.dim, WIDTH) for m, e in encoders.items()}
    noise = {m: torch.randn(30, WIDTH) + torch.arange(WIDTH) / 3 for m in TOYS}
    scorer = CSLSScorer(neighbours=3)
    scorer.fit({m: torch.nn.functional.normalize(rows, dim=1) for m, rows in noise.items()})
    return FusedModel(adapters, infos, scorer, sources=encoders, device="cpu")


def wanted(collection, text, count=8):
    found = collection.search(collection.encode("text", text), "text", count, target="image")
    return [one.key for one in found]


def test_the_toy_is_one_in_which_csls_and_cosine_differ(collection):
    keys = collection.keys("image")
    cosine = collection.vectors(keys) @ collection.encode("text", QUERIES[0])
    best = [keys[int(i)] for i in cosine.topk(8).indices]
    assert best != wanted(collection, QUERIES[0]) and len(keys) == 40


@pytest.mark.parametrize("prefix", ["parquet://", ""])
def test_a_parquet_file_ranks_as_the_index_and_has_all_columns(collection, tmp_path, prefix):
    lines = send(collection, f"{prefix}{tmp_path}/new/photos.parquet")
    table = pq.read_table(tmp_path / "new" / "photos.parquet")
    assert str(tmp_path / "new" / "photos.parquet") in lines[0]
    facts = json.loads(table.schema.metadata[b"fusemix"])
    assert facts == {"dim": WIDTH, "scorer": "csls", "queries": list(collection.query_modalities)}
    rows = [row for row in table.to_pylist() if row["modality"] == "image"]
    matrix = np.array([row["vector"] for row in rows])
    for text in QUERIES:
        order = (matrix @ query_vector(collection, "text", text)).argsort()[::-1][:8]
        assert [rows[i]["key"] for i in order] == wanted(collection, text)
    assert len(table) == len(collection) == 80
    third = next(row for row in rows if row["item"].endswith("/3.png"))
    assert (third["year"], third["data_item"]) == (1993.0, "kind 0")
    assert [row["year"] for row in rows].count(None) == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["photos.parquet"]


def test_a_lance_table_ranks_as_the_index_and_is_replaced_by_a_version(collection, tmp_path):
    lance = pytest.importorskip("lance")
    where = tmp_path / "photos.lance"
    for _ in range(2):
        send(collection, f"lance://{where}")
    table = lance.dataset(str(where))
    assert table.count_rows() == 80 and table.version == 2
    for text in QUERIES:
        nearest = {"column": "vector", "q": np.float32(query_vector(collection, "text", text))}
        found = table.to_table(
            nearest=nearest | {"k": 8, "metric": "dot"},
            filter="modality = 'image'",
            prefilter=True,
            columns=["key", "_distance"],
        )
        assert found["key"].to_pylist() == wanted(collection, text)
    recent = table.to_table(filter="year > 2020 AND modality = 'image'")
    assert recent.num_rows == 9


def test_qdrants_local_mode_ranks_as_the_index_and_filters(collection, tmp_path):
    client_of = pytest.importorskip("qdrant_client").QdrantClient
    from qdrant_client.models import FieldCondition, Filter, MatchValue

    for _ in range(2):
        lines = send(collection, f"qdrant:{tmp_path}/q#photos")
    assert lines == [f'QdrantClient(path="{tmp_path}/q").query_points("photos", query=q, limit=10)']
    client = client_of(path=str(tmp_path / "q"))
    images = Filter(must=[FieldCondition(key="modality", match=MatchValue(value="image"))])
    assert client.count("photos").count == 80
    for text in QUERIES:
        asked = query_vector(collection, "text", text)
        found = client.query_points("photos", query=asked, query_filter=images, limit=8).points
        assert [UUID(one.id).hex for one in found] == wanted(collection, text)
        assert found[0].payload["modality"] == "image" and "year" in found[0].payload
    client.close()


@pytest.fixture(scope="module")
def server():
    """The address of a PostgreSQL with pgvector: pgserver's, which pip installs. As root it runs
    as another user, who can't enter pytest's folders."""
    if find_spec("pgserver") is None:
        pytest.skip("no PostgreSQL with pgvector: pip install pgserver")
    import pgserver

    with tempfile.TemporaryDirectory() as folder:
        started = pgserver.get_server(folder, cleanup_mode="stop")
        yield started.get_uri()
        started.cleanup()


def test_postgresql_ranks_as_the_index_and_keeps_what_it_had_if_sending_fails(
    collection, server, monkeypatch
):
    psycopg = pytest.importorskip("psycopg")
    to = server.replace("postgresql://", "pgvector://") + "&table=my photos"
    for _ in range(2):
        assert '"my photos"' in send(collection, to)[0]
    monkeypatch.setattr(type(collection), "items", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        send(collection, to)
    monkeypatch.undo()
    with psycopg.connect(server) as connection:
        for text in QUERIES:
            asked = str(query_vector(collection, "text", text))
            found = connection.execute(
                "SELECT key FROM \"my photos\" WHERE modality = 'image' "
                "ORDER BY vector <#> %s::vector LIMIT 8",
                [asked],
            ).fetchall()
            assert [key for (key,) in found] == wanted(collection, text)
        count = "SELECT count(*), count(year) FROM \"my photos\" WHERE modality = 'image'"
        assert connection.execute(count).fetchone() == (40, 39)


def test_a_postgresql_that_is_not_there_is_an_error_that_names_the_form(collection):
    pytest.importorskip("psycopg")
    with pytest.raises(ArtefactError, match="PostgreSQL") as error:
        send(collection, "pgvector://nobody@127.0.0.1:1/none?connect_timeout=2")
    assert "pgvector://USER@HOST/DATABASE" in error.value.hint


def test_addresses_that_name_no_store_or_no_place(collection, tmp_path):
    with pytest.raises(UnknownNameError, match="milvus"):
        send(collection, "milvus://localhost/photos")
    with pytest.raises(UnknownNameError, match="photos"):
        send(collection, "photos")
    with pytest.raises(ConfigError, match="names no place"):
        send(collection, "parquet://")
    if find_spec("qdrant_client"):
        with pytest.raises(ConfigError, match="collection is missing"):
            send(collection, f"qdrant:{tmp_path}#")


def test_a_missing_client_is_named_with_how_to_install_it(collection, monkeypatch):
    monkeypatch.setattr("fusemix_stores.sending.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="lance") as error:
        send(collection, "lance://x.lance")
    assert "fusemix-stores[lance]" in error.value.hint


def test_the_command_is_one_of_fusemix_index(collection, tmp_path, named):
    app = typer.Typer()
    app.add_typer(index_app, name="index")
    fusemix_commands(app)
    fusemix_commands(app)
    given = [f"--encoder={m}={name}" for m, name in named.items()]
    to = tmp_path / "photos.parquet"
    shutil.copytree(collection.folder, tmp_path / "index")
    done = CliRunner().invoke(
        app, ["index", "send", str(tmp_path / "index"), "--to", str(to), *given]
    )
    assert done.exit_code == 0, done.output
    assert "80 items written" in done.output and pq.read_metadata(to).num_rows == 80
    assert "send" in CliRunner().invoke(app, ["index", "--help"]).output


def test_listing_the_plugin_imports_no_engine():
    code = (
        "import sys, fusemix_stores; "
        "print([m for m in ('torch', 'lance', 'qdrant_client', 'psycopg') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
