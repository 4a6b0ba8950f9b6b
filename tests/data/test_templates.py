"""Several columns as one item, by a template."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fusemix_core.cli.options import column_values
from fusemix_core.config import DataConfig
from fusemix_core.data import read_pairs
from fusemix_core.data.templates import Template
from fusemix_core.data.writing import write_manifest
from fusemix_core.errors import ConfigError, DataError

TAKES = {"image": "image", "text": "text"}


@pytest.mark.parametrize(
    ("template", "a", "b", "expected"),
    [
        ("{a} {b}", "x", "y", "x y"),
        ("{a} {b}", "x", "", "x"),
        ("{a} {b}", "", "y", "y"),
        ("{a} {b}", "", "", ""),
        ("{a}, {b}", "", "y", "y"),
        ("{a}, {b}", "x", "", "x"),
        ("{a}. {b}", "x", "", "x."),
        ("{a} - {b}", "", "y", "y"),
        ("{a}/{b}", "x", "", "x"),
        ("{a} ({b})", "x", "", "x"),
        ("({a}) {b}", "", "y", "y"),
        ("({a}) {b}", "x", "", "(x)"),
        ("Impression: {a} Findings: {b}", "x", "", "Impression: x"),
        ("Impression: {a} Findings: {b}", "", "y", "Findings: y"),
        ("Impression: {a} Findings: {b}", "", "", ""),
        ("{a}\n{b}.", "x", "y", "x\ny."),
        ("{a} {a} {b}", "x", "y", "x x y"),
        ("{{{a}}} {b}", "x", "y", "{x} y"),
        ("{ a }{b}", "x", "y", "xy"),
    ],
)
def test_missing_parts_are_left_out_with_what_belongs_to_them(template, a, b, expected):
    assert Template(template).render({"a": a, "b": b}) == expected


def test_of_three_the_middle_one_may_be_missing():
    values = {"a": "x", "b": "", "c": "z"}
    assert Template("{a} ({b}) {c}").render(values) == "x z"
    assert Template("{a}, {b}, {c}").render(values) == "x, z"
    assert Template("A: {a}; B: {b}; C: {c}").render(values) == "A: x; C: z"


@pytest.fixture
def data(tmp_path):
    """Four radiographs whose reports have two parts, of which some are missing."""
    (tmp_path / "pics").mkdir()
    rows = []
    parts = [("normal", "clear lungs"), ("", "a nodule"), (" NaN ", None), ("effusion", "")]
    for i, (impression, findings) in enumerate(parts):
        noise = np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "pics" / f"{i}.png")
        row = {"image": f"pics/{i}.png", "impression": impression, "findings": findings}
        rows.append({**row, "folder": "pics", "id": i, "view": "AP"})
    (tmp_path / "reports.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "reports.jsonl"


def read(path, text="{impression} {findings}", **options):
    columns = {"text": text, **options.pop("columns", {})}
    how = {"validation_fraction": 0.0, "test_fraction": 0.0, "missing_values": ("nan",), **options}
    return read_pairs(DataConfig((str(path),), columns=columns, **how), TAKES)


def texts(data):
    return [data.items["text"].describe(i) for i in data.links[:, 1]]


def test_a_text_of_two_columns(data):
    found = read(data)
    assert texts(found) == ["normal clear lungs", "a nodule", "effusion"]
    assert found.columns["text"] == ["{impression} {findings}"]
    assert found.counts["rejected"] == 1 and "no text" in found.rejected[0].reason
    assert texts(read(data, "{findings} ({view})"))[0] == "clear lungs (AP)"
    assert texts(read(data, "{impression}; {id}"))[1:3] == ["1", "2"]


def test_a_path_of_two_columns(data):
    found = read(data, "findings", columns={"image": "{folder}/{id}.png"})
    assert texts(found) == ["clear lungs", "a nodule"]
    assert [str(r).rpartition("/")[2] for r in found.items["image"].references] == [
        "0.png",
        "1.png",
    ]


def test_a_column_that_is_not_there_is_named(data):
    with pytest.raises(DataError, match="no column 'finding' for text") as error:
        read(data, "{impression} {finding}")
    assert "findings" in error.value.hint
    with pytest.raises(DataError, match="names no column") as error:
        read(data, "{impression")
    assert "in braces" in error.value.hint


def test_a_column_may_itself_have_braces(tmp_path):
    (tmp_path / "0.png").write_bytes(b"x")
    (tmp_path / "a.csv").write_text("image,{a}\n0.png,a text\n")
    assert texts(read(tmp_path / "a.csv", "{a}")) == ["a text"]


def test_a_manifest_holds_the_texts_that_were_read(data):
    columns = {"text": "{impression} {findings}"}
    config = DataConfig((str(data),), columns=columns, missing_values=("nan",), test_fraction=0.0,
                        validation_fraction=0.0)  # fmt: skip
    found = read_pairs(config, TAKES)
    path = data.parent / "few.jsonl"
    write_manifest(path, found, np.array([1, 0]), config)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["text"] for line in lines] == ["a nodule", "normal clear lungs"]
    assert "findings" not in lines[0] and lines[0]["view"] == "AP"
    again = DataConfig((str(path),), validation_fraction=0.0, test_fraction=0.0)
    assert texts(read_pairs(again, TAKES)) == ["a nodule", "normal clear lungs"]


def test_a_template_is_given_once():
    assert column_values(["text={a}, {b}"]) == {"text": "{a}, {b}"}
    with pytest.raises(ConfigError, match="only column"):
        column_values(["text={a}", "text=b"])


def test_other_columns_are_written_of_rows_that_come_in_blocks(tmp_path):
    path = tmp_path / "pairs.parquet"
    numbers = range(3_000)
    columns = {"text": [f"one {i}" for i in numbers], "caption": [f"two {i}" for i in numbers],
               "sku": [f"S{i}" for i in numbers]}  # fmt: skip
    pq.write_table(pa.table(columns), path)
    config = DataConfig((str(path),), columns={"text": "text", "a": "caption"})
    found = read_pairs(config, {"text": "text", "a": "text"}, 0)
    write_manifest(tmp_path / "out.csv", found, np.arange(3_000), config)
    last = (tmp_path / "out.csv").read_text().splitlines()[-1]
    assert last.startswith("S2999,one 2999,two 2999")
