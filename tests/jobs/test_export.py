"""Exports of a run's model: what they contain, what they refuse, and what a failed one leaves."""

import json

import pyarrow.parquet as pq
import pytest
import torch
import toys
from pairs import write_world
from toys import ToyImage, ToyText
from typer.testing import CliRunner

from fusemix_core import align
from fusemix_core.cli.app import app
from fusemix_core.config import DataConfig
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.exports.base import Exporter
from fusemix_core.exports.tables import nearest, projected
from fusemix_core.jobs.export import export
from fusemix_core.registry import registry
from fusemix_core.search import Collection

ENCODERS = {"image": ToyImage, "text": ToyText}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(a fused model scored with csls, its data with a fact)."""
    folder = tmp_path_factory.mktemp("export")
    data = write_world(folder / "w", count=60)
    overrides = ["scorer=csls", "aligner.landmarks=0"]
    done = align(ENCODERS, data, recipe="cca", overrides=overrides, out=folder / "r", device="cpu")
    source = data["source"] if isinstance(data, dict) else data
    return done.model, DataConfig(source=(str(source),))


def test_parquet_has_vectors_whose_inner_product_ranks_as_the_model(world, tmp_path):
    model, data = world
    export(model, "parquet", tmp_path / "out", data=data)
    images = pq.read_table(tmp_path / "out/image.parquet").to_pydict()
    stored = torch.tensor(images["vector"])
    queries = model.encode("text", ["a red car", "a blue bird"])
    asked = model.convert(queries, "text", form="query")
    assert len(set(images["key"])) == len(images["key"]) == len(images["item"])
    scores = model.similarity(queries, stored[:, : model.dim], "text", "image")
    assert torch.equal((asked @ stored.T).argsort(1)[:, -5:], scores.argsort(1)[:, -5:])


def test_parquet_of_fewer_dimensions_in_half_precision(world, tmp_path):
    model, data = world
    part = {"form": "", "dims": 3, "dtype": "float16"}
    name = "parquet " + " ".join(f"{k}={json.dumps(v)}" for k, v in part.items())
    from fusemix_core.config import parse_part

    export(model, parse_part(name), tmp_path / "out", data=data)
    column = pq.read_table(tmp_path / "out/text.parquet")["vector"]
    assert str(column.type).startswith("fixed_size_list<") and column.type.list_size == 3
    assert str(column.type.value_type) == "halffloat"


def test_embedding_atlas_gets_a_map_and_neighbours(world, tmp_path):
    model, data = world
    lines = export(model, "embedding-atlas", tmp_path / "out", data=data)
    table = pq.read_table(tmp_path / "out/items.parquet").to_pydict()
    count = len(table["item"])
    assert set(table["modality"]) == {"image", "text"}
    assert len(table["vector"][0]) == model.dim
    rows = torch.tensor(table["vector"])
    best = (rows @ rows.T).fill_diagonal_(-1).max(1)
    first = table["neighbors"]
    assert {len(n["ids"]) for n in first} == {len(n["distances"]) for n in first} == {15}
    found = torch.tensor([n["distances"][0] for n in first])
    torch.testing.assert_close(found, (1 - best.values).clamp(min=0), atol=1e-5, rtol=0)
    assert all(i not in n["ids"] and max(n["ids"]) < count for i, n in enumerate(first))
    assert all(isinstance(x, float) for x in (*table["projection_x"], *table["projection_y"]))
    for option in ("--vector vector", "--x projection_x", "--neighbors neighbors"):
        assert option in lines[0]


@pytest.fixture(scope="module")
def photos(world, tmp_path_factory):
    """An index of the same data."""
    model, data = world
    return Collection.create(tmp_path_factory.mktemp("index") / "i", model, data)


def test_parquet_of_an_index_is_that_of_its_data_with_all_columns(world, photos, tmp_path):
    model, data = world
    export(model, "parquet", tmp_path / "data", data=data)
    export(photos, "parquet", tmp_path / "index")
    for modality in model.modalities:
        one, two = (pq.read_table(tmp_path / f / f"{modality}.parquet") for f in ("data", "index"))
        both = [
            dict(zip(t["key"].to_pylist(), t["vector"].to_pylist(), strict=True))
            for t in (one, two)
        ]
        assert both[0].keys() == both[1].keys()
        rows = [torch.tensor([found[key] for key in both[0]]) for found in both]
        torch.testing.assert_close(*rows, atol=1e-6, rtol=0)
        assert {*photos.columns} == {*two.column_names} - {"key", "item", "vector"}


def test_embedding_atlas_of_an_index_has_its_columns(photos, tmp_path):
    export(photos, "embedding-atlas", tmp_path / "out")
    table = pq.read_table(tmp_path / "out/items.parquet").to_pydict()
    one = photos.items([table["key"][3]])[0]
    assert table["item"][3] == one.item and len(table["item"]) == len(photos)
    assert {name: table[name][3] for name in photos.columns} == one.columns


def test_an_index_takes_no_data(world, photos, tmp_path):
    with pytest.raises(ConfigError, match="its own items"):
        export(photos, "parquet", tmp_path / "out", data=world[1])


def test_the_command_exports_an_index(photos, tmp_path):
    encoders = [f"--encoder={m}={toys.__file__}:{kind.__name__}" for m, kind in ENCODERS.items()]
    to = ["--to", "parquet", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["export", str(photos.folder), *to, *encoders])
    assert done.exit_code == 0, done.output
    assert "image.parquet" in done.output and (tmp_path / "out/text.parquet").is_file()


def test_a_map_lays_modalities_on_one_another():
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    at = projected([rows, rows + 5])
    torch.testing.assert_close(at[:50], at[50:], atol=1e-4, rtol=0)


def test_neighbours_are_none_of_the_items_themselves():
    rows = torch.nn.functional.normalize(torch.randn(30, 4), dim=1)
    ids, distances = nearest(rows, 29)
    assert all(sorted([*own, i]) == list(range(30)) for i, own in enumerate(ids.tolist()))
    assert (distances.diff(dim=1) >= 0).all()


def test_data_are_asked_for_where_they_belong(world, tmp_path):
    model, data = world
    with pytest.raises(ConfigError, match="no data were given"):
        export(model, "parquet", tmp_path / "out")
    with pytest.raises(ConfigError, match="takes no data"):
        export(model, "onnx", tmp_path / "out", data=data)
    with pytest.raises(UnknownNameError, match="onyx"):
        export(model, "onyx", tmp_path / "out")


def test_a_folder_with_files_is_not_touched(world, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        export(world[0], "onnx", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


class Halfway(Exporter):
    """Fails after its first file."""

    def write(self, source, folder):
        (folder / "first").write_text("")
        raise OSError("no more")


class Names(Exporter):
    """The names of the modalities, of a plugin."""

    def write(self, source, folder):
        (folder / "names.txt").write_text("\n".join(source.model.modalities))
        return ["cat {out}/names.txt"]


def test_a_failed_export_leaves_nothing(world, tmp_path):
    registry.add_component("exporter", "halfway", Halfway)
    with pytest.raises(OSError, match="no more"):
        export(world[0], "halfway", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_plugin_adds_a_target(world, tmp_path):
    registry.add_component("exporter", "names", Names)
    assert export(world[0], "names", tmp_path / "out") == [f"cat {tmp_path}/out/names.txt"]
    assert (tmp_path / "out/names.txt").read_text() == "image\ntext"


def test_the_command_names_an_unknown_target_before_anything_is_loaded(tmp_path):
    done = CliRunner().invoke(app, ["export", "nowhere", "--to", "onix", "--out", str(tmp_path)])
    assert done.exit_code == 2 and "onnx" in done.output
