"""Rows of a table as items: which columns they have, and that blocks read the same."""

import json

import pyarrow as pa
import pytest

from fusemix_core.config import DataConfig
from fusemix_core.data import bulk, reading, runs, sources
from fusemix_core.data.media import medium
from fusemix_core.data.reading import pairs_from, read_pairs
from fusemix_core.errors import DataError
from fusemix_core.testing import check_medium

TAKES = {"text": "text", "table": "table"}
HEADER = "text,age,sex,price,visit,trust,split\n"


def write(folder, rows, header=HEADER, name="a.csv"):
    path = folder / name
    path.write_text(header + "".join(f"{row}\n" for row in rows))
    return str(path)


def rows_of(dataset):
    return [json.loads(text) for text in dataset.items["table"].references]


def test_the_medium_keeps_its_contract():
    check_medium("table").raise_if_failed()


def test_a_table_takes_the_columns_that_nothing_else_uses(tmp_path):
    source = write(tmp_path, ["a,61,f,10,1,1,train", "b,34,m,20,2,.5,train"])
    config = DataConfig((source,), facts={"target": "price"}, group_by="visit")
    dataset = read_pairs(config, TAKES)
    assert dataset.columns["table"] == ["age", "sex"]
    assert rows_of(dataset) == [{"age": "61", "sex": "f"}, {"age": "34", "sex": "m"}]
    note = next(w for w in dataset.warnings if w.startswith("table takes"))
    assert "the 2 columns that nothing else uses: age, sex." in note and "--drop table=" in note


def test_named_columns_and_dropped_ones(tmp_path):
    source = write(tmp_path, ["a,61,f,10,1,1,", "b,34,m,20,2,1,"])
    named = read_pairs(DataConfig((source,), columns={"table": "sex,age"}), TAKES)
    assert rows_of(named)[0] == {"age": "61", "sex": "f"}
    dropped = read_pairs(DataConfig((source,), drop={"table": "visit,price"}), TAKES)
    assert dropped.columns["table"] == ["age", "sex"]
    with pytest.raises(DataError, match="no column 'vist'") as error:
        read_pairs(DataConfig((source,), drop={"table": "vist"}), TAKES)
    assert "--drop table=visit" in error.value.hint
    with pytest.raises(DataError, match="can't be dropped from text"):
        read_pairs(DataConfig((source,), drop={"text": "age"}), TAKES)


def test_all_columns_used_is_an_error_that_lists_them(tmp_path):
    source = write(tmp_path, ["a", "b"], "text\n")
    with pytest.raises(DataError, match="no column for table"):
        read_pairs(DataConfig((source,)), TAKES)


def test_a_later_source_is_read_for_the_columns_of_the_first(tmp_path):
    train = write(tmp_path, ["a,1,f", "b,2,m", "c,3,f"], "text,age,sex\n")
    test = write(tmp_path, ["d,4,x", "e,5,y"], "text,age,ward\n", "test.csv")
    dataset = read_pairs(DataConfig((train,), test=test), TAKES)
    assert rows_of(dataset)[-1] == {"age": "5"}


def test_a_row_whose_cells_are_all_empty_lacks_the_table(tmp_path):
    source = write(tmp_path, ["a,,NA", "b,2,m", "c,3,f"], "text,age,sex\n")
    config = DataConfig((source,), missing_values=("NA",))
    dataset = read_pairs(config, TAKES, least=1)
    assert dataset.links[0].tolist() == [0, -1]
    assert len(dataset.items["table"]) == 2
    assert read_pairs(config, TAKES).rejected[0].reason == "the row has no table"


def test_equal_rows_are_one_item(tmp_path):
    source = write(tmp_path, ["a,1,f", "b,1,f", "c,3,f"], "text,age,sex\n")
    dataset = read_pairs(DataConfig((source,)), TAKES)
    assert dataset.links[:, 1].tolist() == [0, 0, 1]


def test_columns_of_lists_are_left_out_and_named(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"text": "a", "age": 1, "tags": ["x"]}, {"text": "b", "age": 2.5, "tags": []}]
    path.write_text("\n".join(map(json.dumps, rows)))
    dataset = read_pairs(DataConfig((str(path),)), TAKES)
    assert rows_of(dataset) == [{"age": 1}, {"age": 2.5}]
    assert any("leaves out columns of lists or files: tags" in w for w in dataset.warnings)
    named = DataConfig((str(path),), columns={"table": "age,tags"}, max_bad=1)
    with pytest.raises(DataError, match="the column 'tags' contains a list"):
        read_pairs(named, TAKES)


def test_rows_from_python_are_taken_by_their_own_names():
    found = pairs_from({"text": ["a", "b"], "table": [{"age": 1}, {"age": None, "b": True}]}, TAKES)
    assert rows_of(found) == [{"age": 1}, {"b": True}]


def test_two_tables_without_columns_are_refused(tmp_path):
    source = write(tmp_path, ["a,1,f", "b,2,m"], "text,age,sex\n")
    with pytest.raises(DataError, match="no column for more"):
        read_pairs(DataConfig((source,)), {**TAKES, "more": "table"})


@pytest.mark.parametrize("missing", [None, ("na", "-")])
def test_blocks_give_the_rows_that_single_rows_give(tmp_path, monkeypatch, missing):
    cells = ["", "na", " - ", "3", "-0.5", "x y", '"q""u"', "é", "\\", "1e5", "a,b"]
    cells = [f'"{c}"' if "," in c else c for c in cells]
    lines = [f"t{i},{cells[i % 11]},{cells[(i * 7 + 3) % 11]},{i}" for i in range(300)]
    lines[100:110] = [f"u{i},,," for i in range(10)]
    source = write(tmp_path, lines, "text,b,a,n\n")
    taken = []
    real = reading.add_block
    monkeypatch.setattr(reading, "add_block", lambda *a: (taken.append(len(a[1])), real(*a)))
    monkeypatch.setattr(sources, "_PEEK", 5)
    monkeypatch.setattr(reading, "_HEAD", 5)
    found = []
    for blocks in (False, True):
        monkeypatch.setattr(runs, "FROM", 0 if blocks else 1 << 60)
        monkeypatch.setattr(bulk, "_SHORT", 1)
        dataset = read_pairs(DataConfig((source,), missing_values=missing), TAKES, least=1)
        found.append((rows_of(dataset), dataset.links.tolist(), dataset.rejected))
    assert found[0] == found[1]
    assert sum(taken) > 200


def test_a_block_joins_numbers_as_a_row_does():
    table = medium("table")
    columns = {
        "whole": pa.array([1, None, 10**15]),
        "half": pa.array([0.1, float("nan"), float("inf")]),
        "yes": pa.array([True, None, False]),
        "text": pa.array([None, "", 'a "b"']),
    }
    single = [{n: c[i].as_py() for n, c in columns.items()} for i in range(3)]
    assert table.join(columns).to_pylist() == [table.cell(one) or None for one in single]
    assert table.join({"when": pa.array([0], pa.timestamp("s"))}) is None


def test_what_python_holds_becomes_plain_cells():
    import datetime as dt
    from decimal import Decimal

    import numpy as np

    row = {
        "number": np.float32(0.5),
        "day": dt.date(2024, 5, 31),
        "exact": Decimal("1.10"),
        "nothing": float("nan"),
        "space": "  ",
        "labs": {"crp": 3, "ldh": None},
    }
    assert medium("table").decode(row) == {
        "number": 0.5,
        "day": "2024-05-31",
        "exact": "1.10",
        "labs.crp": 3,
    }
    with pytest.raises(DataError, match="the column 'x' contains bytes"):
        medium("table").cell({"x": b"1"})
    with pytest.raises(DataError, match="not JSON"):
        medium("table").decode('{"a": 1')
    assert medium("table").decode('{"a": NaN, "b": 1}') == {"b": 1}
