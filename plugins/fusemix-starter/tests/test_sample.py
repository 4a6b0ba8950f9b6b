"""The bundled sample: what the command's first run needs of it."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from fusemix_starter import sample_path
from PIL import Image

from fusemix_core.config import DataConfig
from fusemix_core.data.reading import read_pairs
from fusemix_core.digests import file_sha256

FOLDER = sample_path().parent
COLUMNS = [
    "image",
    "text",
    "caption",
    "split",
    "book",
    "module",
    "section",
    "source",
    "revision",
    "licence",
]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with open(sample_path(), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_size_and_columns(rows):
    assert 1400 <= len(rows) <= 1600
    assert list(rows[0]) == COLUMNS
    assert sum(f.stat().st_size for f in FOLDER.rglob("*") if f.is_file()) <= 12e6


def test_ten_books_split_by_whole_modules(rows):
    assert len({r["book"] for r in rows}) == 10
    splits: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        splits.setdefault((row["book"], row["module"]), set()).add(row["split"])
    assert all(len(s) == 1 for s in splits.values())
    share = Counter(r["split"] for r in rows)
    assert share["train"] > 1000 and 120 <= share["validation"] <= 200 <= share["test"] <= 300
    for split in share:
        assert len({r["book"] for r in rows if r["split"] == split}) == 10


def test_the_classes_are_the_books(rows):
    classes = (FOLDER / "classes.txt").read_text().splitlines()
    assert classes == sorted({r["book"] for r in rows})


def test_texts_are_worth_retrieving_and_none_comes_twice(rows):
    assert all(5 <= len(r["text"].split()) <= 100 for r in rows)
    assert len({r["text"].lower() for r in rows}) == len(rows)


def test_images_open_and_none_comes_twice(rows):
    digests = set()
    for row in rows:
        digests.add(file_sha256(FOLDER / row["image"]))
        with Image.open(FOLDER / row["image"]) as image:
            assert image.mode == "RGB" and min(image.size) >= 32
    assert len(digests) == len(rows)
    assert set(FOLDER.rglob("*.webp")) == {FOLDER / r["image"] for r in rows}


def test_licence_credits_and_pinned_revisions(rows):
    assert {r["licence"] for r in rows} == {"CC BY 4.0"}
    assert all(len(r["revision"]) >= 10 and int(r["revision"], 16) for r in rows)
    text = (FOLDER / "LICENSE").read_text()
    assert "creativecommons.org/licenses/by/4.0" in text and "OpenStax, Rice" in text
    assert "Changes:" in text and all(r["book"] in text for r in rows)
    assert sum("credit" in r["caption"].lower() for r in rows) > 300


def test_it_reads_as_a_paired_dataset(rows):
    data = read_pairs(
        DataConfig(source=(str(sample_path()),), split_column="split"),
        {"image": "image", "text": "text"},
    )
    assert len(data.links) == len(rows) and not data.rejected
    assert {s: len(i) for s, i in data.splits.items()} == Counter(r["split"] for r in rows)
    assert isinstance(data.items["image"].load(0), Image.Image)


def test_path_is_inside_the_package():
    import fusemix_starter

    assert sample_path().is_relative_to(Path(fusemix_starter.__file__).parent)
