"""The column `trust`: how far each row is to be trusted."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fusemix_core.config import DataConfig
from fusemix_core.data import pairs_from, read_pairs
from fusemix_core.errors import DataError

TAKES = {"a": "text", "text": "text"}
TRUST = [1.0, 0.5, 0.0, None, 0.25]
EXPECTED = [1.0, 0.5, 0.0, 1.0, 0.25]
ROWS = [{"a": f"a {i}", "text": f"t {i}", "trust": t} for i, t in enumerate(TRUST)]
ALL = {"validation_fraction": 0.0, "test_fraction": 0.0}


def write(folder, kind):
    path = folder / f"pairs.{kind}"
    if kind == "csv":
        lines = [f"{r['a']},{r['text']},{'' if r['trust'] is None else r['trust']}" for r in ROWS]
        path.write_text("\n".join(["a,text,trust", *lines]))
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(r) for r in ROWS))
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def read(path, **options):
    return read_pairs(DataConfig(source=(str(path),), **{**ALL, **options}), TAKES)


def trust_in(data):
    fact = data.facts["trust"]
    assert fact.kind == "number"
    return fact.values


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_column_tells_and_an_empty_cell_is_trusted(kind, tmp_path):
    data = read(write(tmp_path, kind))
    assert trust_in(data).tolist() == EXPECTED and trust_in(data).dtype == np.float32
    assert not data.rejected
    assert [w for w in data.warnings if w.startswith("Rows of trust 0 (1) ")]


def test_no_column_or_all_trusted_says_nothing(tmp_path):
    (tmp_path / "a.csv").write_text("a,text\nx,y\nv,w\n")
    (tmp_path / "b.csv").write_text("a,text,trust\nx,y,1\nv,w, \n")
    assert "trust" not in read(tmp_path / "a.csv").facts
    assert "trust" not in read(tmp_path / "b.csv").facts


@pytest.mark.parametrize("value", ["1.5", "-0.1", "nan", "yes"])
def test_a_wrong_value_is_a_bad_row(value, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(f"a,text,trust\nx,y,0.5\nv,w,{value}\n")
    (rejected,) = read(path).rejected
    assert (rejected.path, rejected.row) == (str(path), 2)
    assert rejected.reason == f"trust is '{value}', not a number from 0 to 1"
    with pytest.raises(DataError, match="row 2") as caught:
        read(path).check_bad(0.01)
    assert "--trust-column none" in caught.value.hint


def test_a_column_that_is_asked_for_by_name_is_what_it_is_asked_for_as(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("a,trust\nx,in God\nv,nobody\n")
    data = read(path, columns={"text": "trust"})
    assert not data.facts and not data.rejected


def test_every_link_of_a_row_is_trusted_alike_and_bad_items_take_theirs_along():
    trust = [0.5, 1.0, 0.25]
    values = {"a": [["p", "q"], "r", "s"], "text": ["x", "y", "z"]}
    data = pairs_from(values, TAKES, trust=trust, validation_fraction=0, test_fraction=0)
    assert trust_in(data).tolist() == [0.5, 0.5, 1.0, 0.25]
    without = data.without("a", {1: "broken", 2: "broken"})
    assert trust_in(without).tolist() == [0.5, 0.25]
    assert trust_in(without.leaving_out([])).tolist() == [0.5, 0.25]


def test_rows_that_are_not_trusted_at_all_are_measured_by_nobody():
    names = [str(i) for i in range(60)]
    trust = [0.0 if i % 3 == 0 else 0.5 for i in range(60)]
    given = {"a": names, "text": [f"t{n}" for n in names]}, TAKES
    told = pairs_from(*given, trust=trust, validation_fraction=0.3, test_fraction=0.3)
    plain = pairs_from(*given, validation_fraction=0.3, test_fraction=0.3)
    assert np.array_equal(told.splits["train"], plain.splits["train"])
    for name in ("validation", "test"):
        rows = plain.splits[name]
        assert np.array_equal(told.splits[name], rows[rows % 3 > 0]) and (rows % 3 == 0).any()


def csv_with(folder, header, *rows):
    path = folder / "pairs.csv"
    path.write_text("\n".join([header, *rows]))
    return path


def test_another_column_may_be_named_for_it(tmp_path):
    path = csv_with(tmp_path, "a,text,trust,sure", "x,y,in God,0.5", "v,w,nobody,")
    data = read(path, trust_column="sure")
    assert trust_in(data).tolist() == [0.5, 1.0] and not data.rejected
    with pytest.raises(DataError) as caught:
        read(path, trust_column="shure")
    assert "there is no column 'shure' (--trust-column shure)" in str(caught.value)
    assert "Did you mean --trust-column sure?" in caught.value.hint


def test_a_column_of_that_name_can_be_refused(tmp_path):
    path = csv_with(tmp_path, "a,text,trust", "x,y,in God", "v,w,nobody")
    with pytest.raises(DataError) as caught:
        read(path)
    assert "--trust-column none" in caught.value.hint
    data = read(path, trust_column="none")
    assert not data.facts and not data.rejected and len(data) == 2


def test_a_column_of_that_name_read_as_a_fact_is_not_trust(tmp_path):
    path = csv_with(tmp_path, "a,text,trust", "x,y,in God", "v,w,nobody")
    assert read(path, facts={"creed": "trust"}).facts["creed"].names == ("in God", "nobody")


def test_trust_is_a_fact_beside_others(tmp_path):
    path = csv_with(tmp_path, "a,text,trust,f", "x,y,0.5,1", "v,w,,2")
    data = read(path, facts={"f": "f"})
    assert list(data.facts) == ["trust", "f"]
    assert trust_in(data).tolist() == [0.5, 1.0]
