"""Groups of items that are the same, or nearly, and which of each is kept."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fusemix_core.cli.app import app

FILE = Path(__file__).parents[1] / "toys.py"
IMAGE, TEXT = f"image={FILE}:ToyImage", f"text={FILE}:ToyText"


def call(*args, code=0):
    done = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """40 images. Row 5 has the bytes of row 3, row 7 nearly those of row 2, and more of them."""
    folder = tmp_path_factory.mktemp("dedup")
    random, rows = np.random.default_rng(0), []
    for i in range(40):
        colour = random.integers(0, 255, 3)
        pixels = np.clip(colour + random.normal(0, 5 + 2 * i, (16, 16, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        rows.append({"image": f"{i}.png", "text": f"number {i}", "year": 1900 + i})
    (folder / "4.png").write_bytes((folder / "2.png").read_bytes())
    near = np.asarray(Image.open(folder / "1.png")).copy()
    near[0, 0] ^= 1
    Image.fromarray(near).save(folder / "6.png", compress_level=0)
    with open(folder / "pairs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "pairs.csv"


def found_in(*args):
    return json.loads(call("dedup", *args, "--threshold", 0.9999, "--json").stdout)


def test_equal_and_nearly_equal_items_are_grouped_and_the_largest_is_kept(world):
    found = found_in(world, "-e", IMAGE)
    groups = {tuple(m["row"] for m in group): group for group in found["groups"]}
    assert set(groups) == {(7, 2), (3, 5)} and found["dropped"] == 2
    assert [m["keep"] for m in groups[7, 2]] == [True, False]
    assert groups[7, 2][0]["bytes"] > groups[7, 2][1]["bytes"]
    assert groups[3, 5][1]["similarity"] == 1.0 and groups[3, 5][1]["item"] == "4.png"


def test_the_first_is_kept_if_that_is_asked_for(world):
    found = found_in(world, "-e", IMAGE, "--keep", "first")
    assert {tuple(m["row"] for m in group) for group in found["groups"]} == {(2, 7), (3, 5)}


def test_the_rows_that_are_kept_have_all_their_columns(world, tmp_path):
    out, kept, page = tmp_path / "g.csv", tmp_path / "k.csv", tmp_path / "g.html"
    call("dedup", world, "-e", IMAGE, "--threshold", 0.9999, "--out", out, "--kept", kept,
         "--html", page)  # fmt: skip
    before = table(world)
    assert table(kept) == [row for i, row in enumerate(before) if i not in (1, 4)]
    groups = table(out)
    assert {(r["row"], r["keep"]) for r in groups} == {
        ("7", "yes"), ("2", "no"), ("3", "yes"), ("5", "no")
    }  # fmt: skip
    assert "data:image/jpeg" in page.read_text() and "<script" not in page.read_text()


def test_a_folder_and_texts_are_looked_through_as_well(world, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "t.csv").write_text("text\na red car\nRED a car\na blue boat\n")
    found = json.loads(call("dedup", tmp_path / "t.csv", "-e", TEXT, "--json").stdout)
    assert [[m["item"] for m in g] for g in found["groups"]] == [["a red car", "RED a car"]]
    for name in ("1.png", "2.png", "4.png", "6.png", "9.png"):
        shutil.copy(world.parent / name, tmp_path / "photos" / name)
    folder = found_in(tmp_path / "photos", "-e", IMAGE)
    assert {m["item"] for g in folder["groups"] for m in g} == {"1.png", "2.png", "4.png", "6.png"}


def test_an_index_is_looked_through_by_the_encoder_of_its_model(world, tmp_path):
    call("align", "-e", IMAGE, "-e", TEXT, "-d", world, "--recipe", "cca", "--out", tmp_path / "r",
         "--device", "cpu")  # fmt: skip
    both = ("-e", IMAGE, "-e", TEXT)
    call("index", tmp_path / "r", "--data", world, *both, "--out", tmp_path / "i", "--to", "image")
    found = found_in(tmp_path / "i", "-e", IMAGE)
    assert {tuple(m["row"] for m in group) for group in found["groups"]} == {(7, 2), (3, 5)}
    refused = call("dedup", tmp_path / "i", "--modality", "sound", code=2)
    assert "It has image, text" in refused.stderr


def test_nothing_alike_is_no_group(tmp_path):
    (tmp_path / "t.csv").write_text("text\na red car\nsome blue boats\nan old house\n")
    shown = call("dedup", tmp_path / "t.csv", "-e", TEXT).stdout
    assert "3 rows, 0 groups, 0 rows not needed." in shown


def test_what_is_missing_is_said_with_an_example(world, tmp_path):
    assert "--encoder efficientnet-lite0" in call("dedup", world, code=2).stderr
    assert "No data given" in call("dedup", "-e", IMAGE, code=2).stderr
    wrong = call("dedup", world, "-e", IMAGE, "--keep", "best", code=2).stderr
    assert "largest, first" in wrong
    assert ".csv" in call("dedup", world, "-e", IMAGE, "--out", tmp_path / "x.xls", code=2).stderr
