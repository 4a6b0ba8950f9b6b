"""`fusemix search`, run in this process on toy encoders."""

import csv
import json
import os
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pairs import write_world
from typer.testing import CliRunner

from fusemix_core.cli.app import app

TOYS = Path(__file__).parents[1] / "toys.py"
A, B = f"{TOYS}:ToyImage", f"{TOYS}:ToyText"
ENCODERS = ["-e", f"image={A}", "-e", f"text={B}"]


def call(*args, code=0):
    result = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the run `r` of pairs in `world/`, which have a column `sku` besides."""
    folder = tmp_path_factory.mktemp("search")
    pairs = write_world(folder / "world")
    with pairs.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with pairs.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "sku"])
        writer.writeheader()
        writer.writerows(row | {"sku": f"S-{i}" if i % 2 else ""} for i, row in enumerate(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call("align", "--a", A, "--b", B, "--data", pairs, "--out", "r", "--recipe", "csa",
             "--device", "cpu")  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def in_place(monkeypatch, place):
    monkeypatch.chdir(place)


def search(*args, code=0):
    return call("search", "r", *ENCODERS, *args, code=code)


def test_without_data_those_of_the_run_are_searched_and_their_texts_shown():
    hits = json.loads(search("a red car", "--json", "-k", 64).stdout)
    assert len(hits) == 64
    with Path("world/pairs.csv").open(newline="") as file:
        texts = {os.path.basename(r["image"]): r["text"] for r in csv.DictReader(file)}
    assert {os.path.basename(h["item"]): h["columns"]["text"] for h in hits} == texts


def test_columns_of_the_items_own_rows_are_shown_and_an_empty_cell_is_none():
    hits = json.loads(search("a red car", "--show", "sku", "--json", "-k", 64).stdout)
    number = {os.path.basename(h["item"]): h["columns"] for h in hits}
    assert number["7.png"] == {"sku": "S-7"} and number["8.png"] == {"sku": ""}
    line = next(
        x for x in search("a red car", "--show", "sku", "-k", 64).stdout.splitlines()
        if "/7.png" in x
    )  # fmt: skip
    assert line.endswith("world/7.png  S-7")


def test_a_column_that_the_data_lack_is_an_error_that_names_it():
    assert "price" in search("a red car", "--show", "price", code=2).stderr


def test_without_data_and_run_the_error_says_what_to_add(place, tmp_path):
    (place / "r/model").rename(tmp_path / "model")
    try:
        found = call("search", tmp_path / "model", *ENCODERS, "a car", code=2)
    finally:
        (tmp_path / "model").rename(place / "r/model")
    assert "Add --data" in found.stderr


def test_paths_are_whole_and_from_the_folder_of_the_data(monkeypatch, place, tmp_path):
    assert "  world/" in search("a red car", "-k", 1).stdout
    monkeypatch.chdir(tmp_path)
    printed = call("search", place / "r", *ENCODERS, "a red car", "-k", 3).stdout
    names = [line.split()[2] for line in printed.splitlines()[:3]]
    assert all((place / "world" / name).is_file() for name in names)


class _Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.images += [dict(attrs)["src"]] if tag == "img" else []
        self.links += [v for k, v in attrs if k in ("href", "src") and not v.startswith("data:")]

    def handle_data(self, data):
        self.text += data


def test_a_sheet_shows_pictures_and_columns_and_needs_no_other_file(monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    query = "<script>a red car</script>"
    said = search(query, "--show", "sku", "-k", 6, "--html", "sheet.html").stderr
    assert "sheet.html" in said and not opened
    page = _Page(Path("sheet.html").read_text())
    assert len(page.images) == 6 and not page.links
    assert query in page.text and "<script>" not in Path("sheet.html").read_text()
    assert "sku" in page.text and "64 items" in page.text


def test_open_writes_a_sheet_and_opens_it(monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    search("world/3.png", "-k", 2, "--open")
    (address,) = opened
    page = _Page(Path(address.removeprefix("file://")).read_text())
    assert len(page.images) == 1 and "number" in page.text
