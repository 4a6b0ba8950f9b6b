"""Data that Python contains as tables do what the same data in a file do."""

import csv

import numpy as np
import pytest
from pairs import write_world
from PIL import Image
from toys import ToyImage, ToyText

from fusemix_core import FusedModel, align, bench, encode, extend, rank, select
from fusemix_core.config import read_toml
from fusemix_core.data import held
from fusemix_core.data.held import data_config, data_table
from fusemix_core.data.reading import read_pairs
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.jobs.evaluate import evaluate

TAKES = {"image": "image", "text": "text"}
ENCODERS = {"image": ToyImage, "text": ToyText}
HOW = {"device": "cpu", "recipe": "cca"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(the file, its rows with absolute paths)."""
    path = write_world(tmp_path_factory.mktemp("w"))
    with open(path) as file:
        rows = list(csv.DictReader(file))
    return path, [row | {"image": str(path.parent / row["image"])} for row in rows]


def columns(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def pandas_frame(rows):
    return pytest.importorskip("pandas").DataFrame(rows)


def arrow_table(rows):
    return pytest.importorskip("pyarrow").Table.from_pylist(rows)


def dataset(rows):
    return pytest.importorskip("datasets").Dataset.from_list(rows)


class Frame:
    """Has what is asked of a data frame, whatever package brings it."""

    def __init__(self, rows):
        self.table = columns(rows)
        self.columns = list(self.table)

    def __getitem__(self, name):
        return np.array(self.table[name], object)

    def to_dict(self):
        return self.table


class Stored:
    """Has what is asked of a `datasets.Dataset`."""

    def __init__(self, rows, features=None):
        self.table, self.column_names = rows, list(rows[0])
        self.features = self
        self.types = features or {}

    def to_dict(self):
        return self.types

    def __len__(self):
        return len(self.table)

    def with_format(self, kind):
        return self

    def __getitem__(self, part):
        chosen = self.table[part]
        return type("Part", (), {"to_pylist": lambda _: chosen})()


FORMS = [columns, list, Frame, Stored, pandas_frame, arrow_table, dataset]


@pytest.mark.parametrize("form", FORMS)
def test_a_table_is_what_the_same_file_is(form, world):
    path, rows = world
    want = read_pairs(data_config(path), TAKES)
    for data in (form(rows), {"source": form(rows)}):
        found = read_pairs(data_config(data), TAKES)
        assert np.array_equal(found.links, want.links) and not found.rejected
        for modality in TAKES:
            assert np.array_equal(found.items[modality].keys, want.items[modality].keys)
        for name, part in want.splits.items():
            assert np.array_equal(found.splits[name], part)


def test_columns_splits_and_facts_are_named_as_for_a_file(world):
    _, rows = world
    rows = [
        {"photo": r["image"], "says": [r["text"], f"also {i}"], "part": "test" if i > 50 else "",
         "age": float(i) if i % 2 else float("nan")}
        for i, r in enumerate(rows)
    ]  # fmt: skip
    data = {
        "source": Frame(rows),
        "columns": {"image": "photo", "text": "says"},
        "split_column": "part",
        "facts": {"age": "age:number"},
        "max_bad": 1.0,
    }
    found = read_pairs(data_config(data), TAKES)
    assert set(found.facts) == {"age"}
    assert len(found.rejected) == 51 and "'part' is empty" in found.rejected[0].reason
    assert len(found.splits["test"]) == 2 * 13


def test_media_in_cells_are_items(world):
    _, rows = world
    images = [Image.open(row["image"]).convert("RGB") for row in rows[:20]]
    arrays = [np.asarray(image) for image in images]
    wrapped = [{"bytes": open(r["image"], "rb").read(), "path": None} for r in rows[:20]]  # noqa: SIM115
    for cells in (images, arrays, wrapped):
        table = {"image": cells, "text": [r["text"] for r in rows[:20]]}
        found = read_pairs(data_config(table), TAKES)
        assert not found.rejected and len(found.items["image"]) == len(found.links) == 20
        assert np.array_equal(np.asarray(found.items["image"].load(3)), arrays[3])


def test_splits_of_a_dict_of_datasets_and_labels_hold(world):
    _, rows = world
    kinds = {"text": {"_type": "ClassLabel", "names": ["cat", "dog", "owl"]}}
    rows = [{"image": r["image"], "text": i % 3} for i, r in enumerate(rows)]
    parts = {"train": Stored(rows[:40], kinds), "test": Stored(rows[40:], kinds)}
    found = read_pairs(data_config(parts), TAKES)
    assert sorted(found.items["text"].describe(i) for i in range(3)) == ["cat", "dog", "owl"]
    assert len(found.splits["test"]) == 24


def test_every_job_takes_a_table(world, tmp_path):
    _, rows = world
    table = columns(rows)
    done = align(ENCODERS, table, out=tmp_path / "r", **HOW)
    specs = {m: e.spec for m, e in ENCODERS.items()}
    model = FusedModel.from_pretrained(tmp_path / "r", encoders=specs)
    assert evaluate(model, table, "all")["retrieval"] == evaluate(
        model, data_config({"source": Frame(rows)}), "all"
    )["retrieval"]  # fmt: skip
    assert done.model.modalities == ("image", "text")
    assert len(encode({"text": ToyText}, table).dataset.items["text"]) == 64
    assert rank([ToyImage], [ToyText], Frame(rows), shuffles=2, device="cpu").pairings
    chosen = select(ENCODERS, table, 10, "uniform", out=tmp_path / "some.csv", device="cpu")
    assert len(chosen.rows) == 10 and "thing" in (tmp_path / "some.csv").read_text()
    more = {"image": [r["image"] for r in rows], "more": [r["text"] for r in rows]}
    both = extend(done.model, {"more": ToyText}, more, out=tmp_path / "x", **HOW)
    assert both.model.modalities == ("image", "text", "more")
    sets = {"w": {"source": table, "encoders": {m: spec.name for m, spec in specs.items()}}}
    how = {"methods": ["cca"], "seeds": 1, "device": "cpu", "sets": sets}
    lines = bench(how, tmp_path / "b")
    assert len(lines) == 1 and "error" not in lines[0]


def test_a_run_of_a_table_is_resumed_with_the_same_table_only(world, tmp_path):
    _, rows = world
    first = align(ENCODERS, columns(rows), out=tmp_path / "r", **HOW)
    assert read_toml(tmp_path / "r/config.toml")["data"]["source"][0].startswith("<table in memory")
    again = align(ENCODERS, Frame(rows), out=tmp_path / "r", resume=True, **HOW)
    assert again.results["test"] == first.results["test"]
    other = [rows[0] | {"text": "another"}, *rows[1:]]
    with pytest.raises(ConfigError, match="had data.source = .*table in memory"):
        align(ENCODERS, columns(other), out=tmp_path / "r", resume=True, **HOW)


def test_a_table_that_is_gone_is_told(world, monkeypatch):
    _, rows = world
    table = data_table(columns(rows))
    monkeypatch.setattr(held, "_held", type(held._held)())
    with pytest.raises(DataError, match="does not have") as raised:
        read_pairs(data_config(table), TAKES)
    assert "data=" in raised.value.hint


def test_a_table_of_unknown_content_has_a_new_name_each_time(world):
    _, rows = world
    table = [row | {"more": object()} for row in rows]
    assert data_table(table)["source"] != data_table(table)["source"]
    assert data_table(rows)["source"] == data_table(columns(rows))["source"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (7, "The data are a int"),
        ({"image": ["a.png"], "text": "a cat"}, "A column of the table is a str"),
        ({"image": ["a.png"], "text": ["a", "b"]}, "differ in length"),
        ({"image": [], "text": []}, "no row"),
        ([], "The data are a list"),
    ],
)
def test_what_is_no_table_is_an_error_that_says_what_is(data, says):
    with pytest.raises(DataError, match=says):
        read_pairs(data_config(data), TAKES)


def test_several_paths_are_several_sources(world):
    path, _ = world
    assert data_table([path, str(path)])["source"] == [str(path), str(path)]
