"""fusemix-table: kinds of columns, and the numbers that they become."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from fusemix_table import COLUMNS
from fusemix_table.encoder import ColumnsEncoder
from fusemix_table.inference import infer
from fusemix_table.kinds import Category, Date, Flag, Number

import fusemix_core
from fusemix_core.data.tabular import level, numbers
from fusemix_core.encoders.matrix import MatrixEncoder
from fusemix_core.errors import ArtefactError, DataError
from fusemix_core.jobs.evaluate import evaluate
from fusemix_core.registry import registry
from fusemix_core.testing import check_encoder

registry.add(COLUMNS)


def fitted(items, **options):
    return ColumnsEncoder.fit(replace(COLUMNS, options={**COLUMNS.options, **options}), items)


def lines(items, **options):
    told = ColumnsEncoder.learnt(fitted(items, **options))
    return dict(line.split(": ", 1) for line in told)


def rows(items, spec):
    return ColumnsEncoder(spec).collate(items)


def test_it_keeps_the_contract_of_encoders():
    check_encoder(COLUMNS).raise_if_failed(least=30)


def test_listing_imports_neither_torch_nor_numpy():
    code = "import sys, fusemix_table; print({'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"set()\n"


# -- kinds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "kind", "why"),
    [
        ("age", ["61", "34", None, "18.5"], Number, ""),
        ("crp", ["1"] * 30 + ["< 5"], Number, "1 other cells count as missing"),
        ("rooms", [1, 2, 3, 2, 1, 4], Number, ""),
        ("zip_code", [9001, 9002, 9001, 9002, 9003, 9003], Category, "by its name"),
        ("plz", ["01067", "80331", "01067", "80331"], Category, "begin with a zero"),
        ("PassengerId", list(range(20)), None, "an identifier"),
        ("score", list(range(20)), Number, ""),
        ("case", [f"TCGA-{i}" for i in range(20)], None, "100% of its values differ"),
        ("sex", ["f", "m", "f", "m"], Category, ""),
        ("smoker", ["yes", "no", None], Flag, ""),
        ("dead", [0, 1, 1, 0], Flag, ""),
        ("seen", ["2024-05-31", "2023-01-01T12:30"], Date, ""),
        ("ward", ["a", None, "a", None], Category, ""),
        ("same", ["a", "a"], None, "the same in all rows"),
        ("none", [None, None], None, "empty"),
        (
            "file",
            [f"slides/of/the/hospital/number/{i:040}.svs" for i in range(20)],
            None,
            "identifier",
        ),
        (
            "memo",
            [f"彼は{i}と言った。" * 6 for i in range(9)],
            None,
            "a text",
        ),
        ("notes", [f"he said {i} words then" for i in range(9)], None, "--column text=notes"),
    ],
)
def test_the_kind_of_a_column_and_why(name, values, kind, why):
    found = infer(name, values)
    assert found.kind is kind and why in found.why, found


def test_the_plan_has_a_line_for_each_column():
    items = [{"age": i, "sex": "fm"[i % 2], "id": f"p{i}"} for i in range(40)]
    del items[0]["age"]
    assert lines(items) == {
        "age": "number, 2.5% missing",
        "id": "left out: an identifier: 100% of its values differ",
        "sex": "category, 2 values",
    }


def test_many_columns_of_one_kind_have_one_line():
    items = [{f"gene{j:02}": i * j for j in range(1, 40)} | {"sex": "fm"[i % 2]} for i in range(6)]
    told = ColumnsEncoder.learnt(fitted(items))
    assert told == [
        "gene01, gene02, gene03, gene04, gene05, … (34 more): number",
        "sex: category, 2 values",
    ]


def test_the_kind_can_be_forced():
    items = [{"rooms": i % 4, "ward": i % 3, "visit": i * i} for i in range(12)]
    told = lines(items, category="rooms, ward", drop="visit")
    assert told["rooms"] == "category, 4 values, as asked"
    assert told["visit"] == "left out: as asked"
    with pytest.raises(DataError, match="no training row has this column"):
        fitted(items, number="visits")


def test_a_table_of_no_use_is_an_error_that_says_why():
    with pytest.raises(DataError, match="site: left out: the same in all rows"):
        fitted([{"site": "a"}, {"site": "a"}])


# -- numbers ---------------------------------------------------------------------------------------


def test_numbers_are_scaled_by_median_and_quartiles():
    values = np.random.default_rng(0).normal(50, 10, 2_000)
    items = [{"x": float(v)} for v in values]
    got = rows([{"x": 50.0}, {"x": 60.0}, {"x": 1e9}, {"x": "-inf"}, {}], fitted(items))[:, 0]
    torch.testing.assert_close(got, torch.tensor([0, 1, 10, 0, 0.0]), atol=0.06, rtol=0)


def test_a_missing_number_is_the_median_with_a_mark():
    spec = fitted([{"x": 1.0}, {"x": 3.0}, {"y": "a"}, {"x": 2.0, "y": "a"}])
    assert rows([{"x": 2.0}, {}, {"x": "unknown"}], spec)[:, :2].tolist() == [
        [0.0, 0.0],
        [0.0, 1.0],
        [0.0, 1.0],
    ]


def test_a_column_that_is_mostly_zero_is_scaled_all_the_same():
    spec = fitted([{"x": 0.0}] * 30 + [{"x": 5.0}, {"x": 6.0}])
    assert 0 < rows([{"x": 5.0}], spec)[0, 0] < 10


def test_categories_unseen_and_rare_share_a_place():
    spec = fitted([{"c": "a"}] * 5 + [{"c": "b"}] * 5 + [{"c": "rare"}])
    got = rows([{"c": "a"}, {"c": "b"}, {"c": "rare"}, {"c": "new"}, {}], spec)
    assert got.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]]


def test_one_category_in_several_forms():
    assert [level(v) for v in (3, 3.0, "3", "3.0", True, "true", "03")] == [
        *("3", "3", "3", "3", "true", "true", "03")
    ]


def test_a_flag_has_a_sign():
    spec = fitted([{"f": True}, {"f": False}, {}])
    assert rows([{"f": "yes"}, {"f": 0}, {}, {"f": "?"}], spec).tolist() == [
        [1, 0],
        [-1, 0],
        [0, 1],
        [0, 1],
    ]


def test_dates_of_one_season_and_weekday_are_alike():
    days = [f"20{y}-{m:02}-15" for y in range(10, 20) for m in range(1, 13)]
    spec = fitted([{"d": d} for d in days])
    got = rows([{"d": "2015-06-15"}, {"d": "2016-06-14"}, {"d": "2015-12-15"}], spec)
    assert got.shape == (3, 5) and got.isfinite().all()
    season = got[:, 1:3]
    assert (season[0] - season[1]).norm() < 0.05 < (season[0] - season[2]).norm()
    assert rows([{"d": "2015-06-15"}], spec)[0, 3:].tolist() == pytest.approx([0.0, 1.0])  # Monday
    timed = fitted([{"d": f"{d}T{i % 24:02}:00"} for i, d in enumerate(days)])
    assert rows([{"d": "2015-06-15T06:00"}], timed)[0, 5:].tolist() == pytest.approx(
        [1, 0], abs=1e-6
    )


def test_numbers_are_read_at_once_as_one_by_one():
    cells = ["1.5", 2, True, None, "x", "1e400", 10**400, "nan", " 3 ", "-inf"]
    whole = numbers(cells)
    single = np.concatenate([numbers([cell]) for cell in cells])
    np.testing.assert_array_equal(whole, single)
    assert whole[:3].tolist() == [1.5, 2, 1] and np.isnan(whole[3:8]).all() and whole[8] == 3


# -- with fusemix ----------------------------------------------------------------------------------


def patients(count=160):
    draw = np.random.default_rng(0)
    hidden = draw.normal(size=(count, 4))
    table = {
        "age": (50 + 10 * hidden[:, 0]).round(1).tolist(),
        "bmi": [None if i % 11 == 0 else 25 + 3 * h for i, h in enumerate(hidden[:, 1])],
        "city": [["Oslo", "Rome", "Bonn"][int(h > 0) + int(h > 1)] for h in hidden[:, 2]],
        "smoker": ["yes" if h > 0 else "no" for h in hidden[:, 3]],
        "audio": [str(i) for i in range(count)],
    }
    latents = np.concatenate([hidden, draw.normal(size=(count, 4))], axis=1)
    return table, latents.astype(np.float32)


def test_a_table_is_aligned_saved_loaded_and_asked(tmp_path):
    table, latents = patients()
    done = fusemix_core.align(
        {"table": "columns", "audio": latents}, table, out=tmp_path, recipe="cca"
    )
    assert done.results["validation"]["retrieval"]["mean_r1"] > 30  # of 16, by chance 6
    assert done.results["columns"]["table"] == ["age", "bmi", "city", "smoker"]
    model = fusemix_core.FusedModel.from_pretrained(tmp_path)
    assert "age: number" in done.results["learnt"]["table"]
    row = {"age": 61, "city": "Nowhere", "shoe size": 44}
    got = model.encode("table", [row, json.dumps(row)])
    assert torch.equal(got[0], got[1]) and got.isfinite().all()


def test_a_table_joins_a_model_and_is_measured_on_data_with_other_columns(tmp_path):
    table, latents = patients()
    both = {"text": MatrixEncoder.of(latents @ latents[:8].T, "text"), "audio": latents}
    ids = {"text": table["audio"], "audio": table["audio"]}
    fusemix_core.align(both, ids, out=tmp_path / "a", recipe="cca")
    sources = {"text": both["text"], "audio": MatrixEncoder.of(latents, "audio")}
    done = fusemix_core.extend(
        tmp_path / "a", {"table": "columns", **sources}, table, out=tmp_path / "b", recipe="cca"
    )
    assert done.model.modalities == ("text", "audio", "table")
    more = {**table, "shoe size": [40 + i % 9 for i in range(len(latents))]}
    found = evaluate(done.model, more, split="all")
    assert found["retrieval"]["mean_r1"] > 5  # of 160, by chance 0.6


def test_what_was_learnt_is_checked_when_it_is_read():
    spec = fitted([{"x": 1.0}, {"x": 2.0}])
    for damage in (
        {"columns": {"x": {"kind": "number", "missing": False, "centre": 0.0, "scale": 0.0}}},
        {"columns": {"x": {"kind": "os.system", "missing": False}}},
        {"columns": ["x"]},
        3,
    ):
        with pytest.raises(ArtefactError, match="damaged"):
            ColumnsEncoder(replace(spec, options={**spec.options, "learnt": damage}))
