"""Facts: further columns of the rows, from every reader that can hold them."""

import csv
import io
import json
import math
import re
import tarfile
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fusemix_core.config import DataConfig, from_dict
from fusemix_core.data import pairs_from, read_pairs
from fusemix_core.data.cells import FactColumn
from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError

TAKES = {"a": "text", "text": "text"}
WHOLE = {"validation_fraction": 0.0, "test_fraction": 0.0}
NOON = datetime(2024, 5, 31, 12, tzinfo=timezone(timedelta(hours=2)))
ROWS = [
    {"age": 4, "sort": "cat", "note": "one day", "seen": NOON, "place": [0, 1, 2, 3]},
    {"age": 5.5, "sort": "ant", "note": "two days", "seen": NOON, "place": [0.5, 1, 2, 3]},
    {"age": None, "sort": None, "note": None, "seen": None, "place": None},
    {"age": -1, "sort": "cat", "note": "three", "seen": NOON, "place": [5, 5, 5, 6]},
]
NAMES = {name: name for name in ROWS[0]}


def read(path, facts=NAMES, takes=TAKES, **options):
    config = DataConfig(source=(str(path),), facts=facts, **{**WHOLE, **options})
    return read_pairs(config, takes)


def as_json(value):
    return value.isoformat() if isinstance(value, datetime) else value


def with_items(rows):
    return [{"a": f"a {i}", "text": f"t {i}", **row} for i, row in enumerate(rows)]


def as_csv(folder, delimiter=","):
    path = folder / ("pairs.csv" if delimiter == "," else "pairs.tsv")
    with open(path, "w", newline="") as file:
        rows = with_items(ROWS)
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        for row in rows:
            row = {k: json.dumps(v) if isinstance(v, list) else as_json(v) for k, v in row.items()}
            writer.writerow(row)
    return path


def as_tsv(folder):
    return as_csv(folder, "\t")


def as_jsonl(folder):
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row, default=as_json) for row in with_items(ROWS)))
    return path


def as_list(folder):
    path = folder / "pairs.json"
    path.write_text(json.dumps(with_items(ROWS), default=as_json))
    return path


def as_parquet(folder):
    path = folder / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist(with_items(ROWS)), path)
    return path


def as_saved(folder):
    folder = folder / "saved"
    folder.mkdir()
    table = pa.Table.from_pylist(with_items(ROWS))
    with pa.ipc.new_stream(str(folder / "data.arrow"), table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return folder


def as_shard(folder):
    path = folder / "pairs.tar"
    with tarfile.open(path, "w") as archive:
        for i, row in enumerate(with_items(ROWS)):
            data = json.dumps(row, default=as_json).encode()
            info = tarfile.TarInfo(f"{i}.json")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "write", [as_csv, as_tsv, as_jsonl, as_list, as_parquet, as_saved, as_shard]
)
def test_every_kind_comes_from_every_format(write, tmp_path):
    data = read(write(tmp_path), {**NAMES, "kind of": "sort:class"})
    assert not data.rejected and not data.warnings
    facts = data.facts
    kinds = {"age": "number", "sort": "text", "note": "text", "seen": "time", "place": "box"}
    assert {name: fact.kind for name, fact in facts.items()} == {**kinds, "kind of": "class"}
    np.testing.assert_array_equal(facts["age"].values, np.array([4, 5.5, math.nan, -1], "f4"))
    assert facts["age"].values.dtype == np.float32
    assert facts["kind of"].names == ("ant", "cat")
    assert facts["kind of"].values.tolist() == [1, 0, -1, 1]
    assert facts["note"].names == ("one day", "two days", "three")
    assert facts["note"].values.tolist() == [0, 1, -1, 2]
    noon = datetime(2024, 5, 31, 10, tzinfo=UTC).timestamp()
    np.testing.assert_array_equal(facts["seen"].values, [noon, noon, math.nan, noon])
    assert facts["place"].values.shape == (4, 4) and facts["place"].values[1].tolist()[0] == 0.5
    assert [fact.missing.tolist() for fact in facts.values()] == [[False, False, True, False]] * 6


def test_karpathys_images_have_facts(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    Image.new("RGB", (3, 2)).save(tmp_path / "b.png")
    sentences = [{"raw": "one"}, {"raw": "two"}]
    images = [
        {"filename": "a.png", "sentences": sentences, "bbox": [0, 0, 2, 2.5], "score": 0.5},
        {"filename": "b.png", "sentences": [{"raw": "b"}], "bbox": [1, 0, 2, 2], "score": 1},
    ]
    (tmp_path / "set.json").write_text(json.dumps({"images": images}))
    takes = {"image": "image", "text": "text"}
    data = read(tmp_path / "set.json", {"box": "bbox", "score": "score"}, takes)
    assert data.facts["score"].values.tolist() == [0.5, 0.5, 1.0]
    assert data.facts["box"].values.tolist() == [[0, 0, 2, 2.5]] * 2 + [[1, 0, 2, 2]]


def test_names_of_classes_are_facts(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(2):
            picture = Image.new("RGB", (2, 2), (i, len(name), ord(name[0])))
            picture.save(tmp_path / "set" / name / f"{i}.png")
    takes = {"image": "image", "text": "text"}
    data = read(tmp_path / "set", {"y": "label:class"}, takes)
    assert data.facts["y"].names == ("cat", "dog") and data.facts["y"].values.tolist() == [
        0,
        0,
        1,
        1,
    ]
    feature = {"_type": "ClassLabel", "names": ["ant", "bee"]}
    features = json.dumps({"info": {"features": {"y": feature}}})
    table = pa.table({"a": ["x", "z"], "text": ["v", "w"], "y": [1, 0]})
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), tmp_path / "p.parquet")
    data = read(tmp_path / "p.parquet", {"y": "y:class"})
    assert data.facts["y"].names == ("ant", "bee") and data.facts["y"].values.tolist() == [1, 0]


def test_members_and_bytes_are_read_as_texts(tmp_path):
    with tarfile.open(tmp_path / "p.tar", "w") as archive:
        for i in range(3):
            for suffix, text in (("txt", f"text {i}"), ("a", f"a {i}"), ("cls", f"{i % 2}\n")):
                info = tarfile.TarInfo(f"{i}.{suffix}")
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
    assert read(tmp_path / "p.tar", {"y": "cls"}).facts["y"].values.tolist() == [0, 1, 0]
    table = pa.table({"a": ["x", "y"], "text": ["v", "w"], "y": [b"caf\xc3\xa9", b"\xff\xfe"]})
    pq.write_table(table, tmp_path / "p.parquet")
    data = read(tmp_path / "p.parquet", {"y": "y:text"})
    assert data.facts["y"].names[:1] == ("café",) and len(data) == 1
    assert "fact 'y'" in data.rejected[0].reason


def lists(values, name="f", **options):
    count = len(values)
    items = {"a": [f"a {i}" for i in range(count)], "text": [f"t {i}" for i in range(count)]}
    return pairs_from(items, TAKES, facts={name: values}, **WHOLE, **options)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2.5, None, "3", " 4 ", Decimal("1.5")], "number"),
        ([True, False, None], "class"),
        ([0, 1, 0, 1], "number"),
        (["2024-01-01", "2024-01-01T10:00:00Z", date(2023, 1, 1)], "time"),
        (["x", "y", "x", "y"], "class"),
        (["x", "y", "z", "x"], "text"),
        ([[1, 2, 3, 4], "[1, 2, 3, 4]", "1, 2, 3, 4"], "box"),
        (["12:30", "13:00"], "text"),
        (["1_000", "2_000"], "text"),
        (["2024-13-45", "x"], "text"),
        ([None, None], "text"),
        ([str(i) for i in range(18)] + ["n/a", "?"], "number"),
        ([str(i) for i in range(17)] + ["n/a", "?"], "text"),
    ],
)
def test_a_kind_is_guessed_by_the_stated_rules(values, kind):
    assert lists(values).facts["f"].kind == kind


def test_what_most_cells_are_not_is_rejected_and_said():
    data = lists([str(i) for i in range(10)] + ["n/a"])
    assert len(data) == 10 and len(data.facts["f"]) == 10
    assert data.rejected[0].row == 11
    assert data.rejected[0].reason == "fact 'f': 'n/a' is not a number"
    assert "--fact f=f:text" in data.warnings[0]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("number", [1, "2", True, math.nan, "nan", ""], ["n/a", "inf", 1e39, 10**400, "1,5", [1]]),
        ("class", [1, "x", True, 2.0], [[1, 2], {"x": 1}, 10**5000]),
        ("text", ["x", 3], [["x", "y"]]),
        ("time", [0, "1e9", "2024-01-01 10:00", date(2024, 1, 1)],
         ["x", True, "2024-02-30", "23:59", 10**400, "10000-01-01"]),
        ("box", ["1,2,3,4", [0, 0, 0, 0], ".1, .2, 3., .4", "[.1,2,3,4]"],
         [[1, 2, 3], [1, 2, 3, 4, 5], [3, 2, 1, 4], "1,2,3,x", [1, 2, 3, math.inf], [0, 0, 9, 1e40],
          [True] * 4, "[.1,.2,.3,.4", ".1,.2,,.4"]),
        ("xywh", [[5, 5, 1, 1]], [[5, 5, -1, 1]]),
    ],
)  # fmt: skip
def test_an_unreadable_cell_puts_its_row_aside(kind, good, bad):
    data = lists([*good, *bad], f"f:{kind}")
    assert len(data) == len(good)
    assert [r.row for r in data.rejected] == [len(good) + i + 1 for i in range(len(bad))]
    assert all(r.reason.startswith("fact 'f': ") for r in data.rejected)


def test_values_of_each_kind():
    assert lists([1, 2.0, "10", True], "f:class").facts["f"].names == ("1", "10", "2", "True")
    assert lists(["10", "9", "9.5"], "f:class").facts["f"].names == ("9", "9.5", "10")
    assert lists([True, False], "f:number").facts["f"].values.tolist() == [1, 0]
    assert lists([[5, 6, 1, 2]], "f:xywh").facts["f"].values.tolist() == [[5, 6, 6, 8]]
    times = ["2024-01-01", "2024-01-01T01:00:00+01:00", "1969-12-31T23:59:59.5Z", 1704067200]
    day = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
    assert lists(times, "f:time").facts["f"].values.tolist() == [day, day, -0.5, day]
    arrays = [np.float32(1.5), np.int64(2)]
    assert lists(arrays).facts["f"].values.tolist() == [1.5, 2]
    assert lists([np.arange(4.0)]).facts["f"].kind == "box"


def test_whole_numbers_that_32_bits_round_are_said():
    data = lists([16777216, 16777217, 2**70])
    assert "1 whole numbers that 32 bits round" in data.warnings[0]
    assert "--fact f=f:class" in data.warnings[0]
    assert lists([16777217, 16777219], "f:class").facts["f"].names == ("16777217", "16777219")


def test_odd_names_stay_data(tmp_path):
    names = ["a\0b", "<script>alert(1)</script>", "[bold]x[/bold]", "\x1b[31m", "e\u0301", "-1"]
    path = tmp_path / "p.jsonl"
    rows = with_items([{"y": name} for name in [*names, "\ud800"]])
    path.write_text("\n".join(json.dumps(row) for row in rows))
    data = read(path, {"y": "y:class"})
    expected = {*names[:4], "\u00e9", "-1"}
    assert set(data.facts["y"].names) == expected and len(data) == len(names)
    assert data.rejected[0].reason == "fact 'y': the text contains half a surrogate pair"


def test_facts_are_of_rows_through_links_splits_and_rejections():
    count = 60
    items = {
        "a": [[f"a {i}", f"b {i}"] for i in range(count)],
        "text": [f"t {i}" for i in range(count)],
    }
    values = [None if i == 7 else i for i in range(count)]
    data = pairs_from(items, TAKES, facts={"n": values}, validation_fraction=0.2)
    number = {f"t {i}": value for i, value in enumerate(values)}

    def right(data):
        texts = [data.items["text"].describe(i) for i in data.links[:, 1]]
        expected = np.array([number[text] for text in texts], "f4")
        np.testing.assert_array_equal(data.facts["n"].values, expected)

    assert len(data) == 2 * count
    right(data)
    less = data.without("text", {3: "broken", 40: "broken"})
    assert len(less) == 2 * (count - 2)
    right(less)
    right(less.with_split("train", less.splits["train"][:5]))
    right(data.without("a", {0: "broken"}).leaving_out([]))
    train = data.facts["n"].select(data.splits["train"])
    assert len(train) == len(data.splits["train"])


def test_words_for_nothing_are_missing_in_facts_too(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("a,text,f\nx,y,1\nv,w,N/A\nr,s,3\n")
    data = read(path, {"f": "f:number"}, missing_values=("n/a",))
    assert not data.rejected and data.facts["f"].missing.tolist() == [False, True, False]


def test_equal_rows_with_other_facts_both_stay():
    data = pairs_from({"a": ["x"] * 2, "text": ["y"] * 2}, TAKES, facts={"f": [1, 2]}, **WHOLE)
    assert len(data) == 2 and len(data.items["a"]) == 1
    assert data.facts["f"].values.tolist() == [1, 2]


def test_rows_that_are_not_links_leave_facts_in_place(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("a,text,f\nx,y,1\nz,,2\n,w,3\nu,v,4\nq,,oops\n")
    data = read(path, {"f": "f:number"}, unpaired=True)
    assert data.facts["f"].values.tolist() == [1, 4]
    assert [data.items["a"].describe(i) for i in data.unpaired["a"]] == ["z"]
    assert [(r.row, r.reason) for r in data.rejected] == [(5, "fact 'f': 'oops' is not a number")]
    with pytest.raises(DataError, match="'oops' is not a number"):
        data.check_bad(0.01)


def test_rows_of_a_single_item_keep_their_facts(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("a,text,f\nx,y,1\nz,,2\n,w,\n,,4\n")
    data = read_pairs(DataConfig((str(path),), facts={"f": "f"}, **WHOLE), TAKES, least=1)
    assert data.links.tolist() == [[0, 0], [1, -1], [-1, 1]]
    np.testing.assert_array_equal(data.facts["f"].values, np.array([1, 2, math.nan], "f4"))
    assert [r.row for r in data.rejected] == [4]
    assert data.without("a", {1: "broken"}).facts["f"].values.tolist()[0] == 1
    assert len(read(path, {"f": "f"})) == 1


def test_several_sources_share_kinds_and_classes(tmp_path):
    (tmp_path / "a.csv").write_text("a,text,y,n\nx,y,dog,1\nv,w,cat,2\n")
    (tmp_path / "b.jsonl").write_text('{"a": "p", "text": "q", "y": "dog"}\n')
    facts = {"y": "y:class", "n": "n"}
    data = read(tmp_path / "a.csv", facts, validation=str(tmp_path / "b.jsonl"))
    assert data.facts["y"].names == ("cat", "dog")
    assert data.facts["y"].values[data.splits["validation"]].tolist() == [1]
    assert data.facts["n"].missing.tolist() == [False, False, True]
    (warning,) = [w for w in data.warnings if "n" in w and "column" in w]
    assert "b.jsonl has no column 'n' (--fact n=n)" in warning


def test_a_column_that_begins_late_is_found(tmp_path):
    path = tmp_path / "p.jsonl"
    rows = with_items([{} for _ in range(1200)] + [{"f": 3}])
    path.write_text("\n".join(json.dumps(row) for row in rows))
    data = read(path, {"f": "f"})
    assert data.facts["f"].values[-1] == 3 and data.facts["f"].missing.sum() == 1200


@pytest.mark.parametrize(
    ("facts", "error", "message"),
    [
        ({"f": "agee"}, DataError, "there is no column 'agee' (--fact f=agee)"),
        ({"f": "agee"}, DataError, "Did you mean --fact f=age?"),
        ({"f": "age:numbr"}, DataError, "'numbr' is not a kind: number, class"),
        ({"text": "age"}, ConfigError, "The fact 'text' has the name of a modality."),
        ({"trust": "age"}, ConfigError, "--trust-column age"),
    ],
)
def test_what_cannot_be_a_fact_is_said(facts, error, message, tmp_path):
    with pytest.raises(error) as caught:
        read(as_jsonl(tmp_path), facts)
    assert message in f"{caught.value}\n{caught.value.hint}"


def test_one_column_may_be_several_things(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("a,text\nx,dog\ny,cat\nz,dog\n")
    data = read(path, {"label": "text:class", "name": "text:text"})
    assert data.facts["label"].values.tolist() == [1, 0, 1]
    assert data.facts["name"].values.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "column", "kind"),
    [("age", "age", None), ("dc:title", "dc:title", None), ("dc:title:text", "dc:title", "text"),
     ("class:class", "class", "class"), (":class", ":class", None)],
)  # fmt: skip
def test_a_kind_follows_its_column(text, column, kind):
    assert FactColumn.parse(text) == FactColumn(column, kind)


def test_facts_are_of_a_config():
    config = from_dict(DataConfig, {"source": ["p.csv"], "facts": {"age": "age:number"}})
    assert config.facts == {"age": "age:number"}
    with pytest.raises(ConfigError, match="facts"):
        from_dict(DataConfig, {"facts": {"age": 3}})


def test_an_empty_column_is_said():
    data = lists([None, ""])
    assert data.facts["f"].missing.all() and "missing in all rows" in data.warnings[0]


def test_what_a_fact_is_in_short():
    assert lists(["x", "y", None], "f:class").facts["f"].as_dict() == {
        "kind": "class", "missing": 1, "classes": 2,
    }  # fmt: skip
    box = Fact("box", np.full((3, 4), np.nan, np.float32))
    assert box.as_dict() == {"kind": "box", "missing": 3}
    assert Fact("number", np.zeros(0, np.float32)).as_dict() == {"kind": "number", "missing": 0}


def grids(folder, maps):
    """A table whose rows name the maps of a stack, one map in a file of its own, and none."""
    np.save(folder / "maps.npy", maps)
    np.save(folder / "own.npy", maps[0] * np.nan)
    cells = [f"maps.npy#{i}" for i in range(len(maps))] + ["own.npy", ""]
    lines = [f"a {i},t {i},{cell}" for i, cell in enumerate(cells)]
    path = folder / "pairs.csv"
    path.write_text("\n".join(["a,text,map", *lines]))
    return path


def test_grids_are_maps_of_a_stack_or_files_of_their_own(tmp_path):
    maps = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    fact = read(grids(tmp_path, maps), {"map": "map:grid"}).facts["map"]
    assert fact.kind == "grid" and fact.missing.tolist() == [False, False, True, True]
    assert np.array_equal(fact.values[:2], maps) and fact.values.dtype == np.float32
    assert np.array_equal(fact.select(np.array([1, 0])).values, maps[::-1])
    assert fact.with_missing(2).missing.sum() == 4


def test_grids_from_python(tmp_path):
    given = [np.eye(3, dtype=np.uint8), None, np.ones((3, 3))]
    values = {"a": ["x", "y", "z"], "text": ["1", "2", "3"]}
    fact = pairs_from(values, TAKES, facts={"map:grid": given}).facts["map"]
    assert fact.missing.tolist() == [False, True, False] and fact.values[0].trace() == 3


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("maps.npy#9", "has no grid 9"),
        ("zipped.npy", "can't be read"),
        ("maps.npy", "not a grid \\[H, W\\]"),
        ("none.npy", "can't be read"),
        ("map.png", "name an .npy file"),
        ("../maps.npy#0", "outside"),
        ("other.npy", "shape \\(2, 2\\), and others are \\(3, 4\\)"),
    ],
)
def test_a_cell_that_names_no_grid_is_a_bad_row(cell, reason, tmp_path):
    path = grids(tmp_path, np.zeros((2, 3, 4)))
    np.save(tmp_path / "other.npy", np.zeros((2, 2)))
    (tmp_path / "zipped.npy").write_bytes(b"PK\x03\x04 not a zip")
    with path.open("a") as file:
        file.write(f"\nx,y,{cell}")
    (bad,) = read(path, {"map": "map:grid"}).rejected
    assert re.search(reason, bad.reason), bad.reason


def test_a_grid_is_never_unpickled(tmp_path):
    path = grids(tmp_path, np.zeros((2, 3, 4)))
    np.save(tmp_path / "own.npy", np.array([[{}]], object), allow_pickle=True)
    (bad,) = read(path, {"map": "map:grid"}).rejected
    assert "can't be read" in bad.reason
