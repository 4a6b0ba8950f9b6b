"""`fusemix index` and `fusemix search` on an index."""

import json
from pathlib import Path

import pytest
from search.conftest import ENCODERS
from typer.testing import CliRunner

from fusemix_core.cli.app import app

GIVEN = [part for name, file in ENCODERS.items() for part in ("-e", f"{name}={file}")]


def call(*args, code=0):
    result = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def index(fitted, world, tmp_path):
    call("index", fitted / "run", "--data", world / "pairs.csv", "--out", tmp_path / "i", *GIVEN)
    return tmp_path / "i"


def search(index, *args, code=0):
    return call("search", index, *GIVEN, *args, code=code)


def test_an_index_is_searched_as_the_data_are(index, fitted, world):
    """The same items in the same order, with the same scores."""
    found = json.loads(search(index, "a red car", "--json", "-k", 20).stdout)
    args = ("search", fitted / "run", *GIVEN, "--data", world / "pairs.csv", "a red car", "--json")
    expected = json.loads(call(*args, "-k", 20).stdout)
    assert [one["item"] for one in found] == [one["item"] for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["rank"] == other["rank"] and len(one["key"]) == 32
    assert found[0]["columns"]["text"].startswith("a red ")


def test_results_are_lines_and_columns_on_request(index, world):
    lines = search(index, "a red car", "-k", 3, "--show", "thing").stdout.splitlines()
    assert len(lines) == 4 and lines[-1] == "96 items searched"
    assert lines[0].split()[0] == "1" and lines[0].endswith("  house") and ".png" in lines[0]
    lines = search(index, "a red car", "-k", 3).stdout.splitlines()
    assert all(".png  a " in line for line in lines[:3])  # the caption
    lines = search(index, world / "0.png", "--to", "text", "-k", 1).stdout.splitlines()
    assert lines[0].count("number") == 1
    assert "no column 'price'" in search(index, "a red car", "--show", "price", code=2).stderr


def test_conditions_and_other_directions(index, world):
    found = json.loads(
        search(index, "a red car", "--json", "--where", "thing in ('boat', 'cup')").stdout
    )
    assert {one["columns"]["thing"] for one in found} == {"boat", "cup"}
    found = json.loads(search(index, world / "0.png", "--to", "text", "--json", "-k", 4).stdout)
    assert len(found) == 4 and all("number" in one["item"] for one in found)
    said = search(index, "a red car", "--where", "thing = boat", code=2).stderr
    assert "single quotes" in said


def test_a_sheet_of_what_is_found(index, world, tmp_path):
    search(index, "a red car", "-k", 3, "--html", tmp_path / "sheet.html")
    assert (tmp_path / "sheet.html").read_text().count("<img") == 3


def test_an_update_says_what_changed(index, world):
    (world / "5.png").unlink()
    found = call("index", "update", index, *GIVEN, code=2)
    assert "5.png" in found.output  # more than 1% of the rows are bad
    assert call("index", "check", index).stdout.strip() == "Nothing is damaged."
    rows = (world / "pairs.csv").read_text().splitlines()
    (world / "pairs.csv").write_text("\n".join(r for r in rows if "5.png" not in r) + "\n")
    said = call("index", "update", index, *GIVEN).stdout
    removed = sum("5.png" in row for row in rows)
    assert said.strip() == f"0 added, {2 * removed} removed, {192 - 2 * removed} items"


def test_info_and_compact(index):
    call("index", "compact", index)
    facts = json.loads(call("index", "info", index, "--json").stdout)
    assert facts["items"] == {"image": 96, "text": 96} and facts["scorer"] == "csls"
    assert facts["columns"] == {"text": "text", "thing": "text"}
    assert "96 image, 96 text" in call("index", "info", index).stdout


def test_a_damaged_index_ends_the_check_with_1_and_an_update_mends_it(index):
    path = next(index.glob("vectors/image/*.vectors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert path.name in call("index", "check", index, code=1).stdout.replace("\n", "")
    assert "index update" in search(index, "a red car", code=2).stderr
    call("index", "update", index, *GIVEN)
    call("index", "check", index)
    search(index, "a red car")


def test_what_does_not_go_together_is_refused(index, fitted, world):
    said = search(index, "a red car", "--data", world, code=2).stderr
    assert "has its data already" in said
    said = call("search", fitted / "run", *GIVEN, "a car", "--where", "thing = 'x'", code=2).stderr
    assert "--where needs an index" in said
    said = call("index", "check", world, code=2).stderr
    assert "is not an index" in said
    again = ["index", fitted / "run", "--data", world, "--out", index, *GIVEN]
    assert "has an index already" in call(*again, code=2).stderr


def test_an_index_of_data_that_cannot_be_read_is_not_begun(fitted, world, tmp_path):
    (tmp_path / "empty").mkdir()
    build = ["index", fitted / "run", *GIVEN, "--out", tmp_path / "i", "--data"]
    for wrong in ("none.csv", "empty"):
        call(*build, tmp_path / wrong, code=2)
        assert not (tmp_path / "i").exists()
    call(*build, world / "pairs.csv")
    assert len(json.loads(search(tmp_path / "i", "a red car", "--json").stdout)) == 10


def test_an_index_that_failed_on_its_items_is_built_by_the_corrected_command(
    fitted, world, tmp_path
):
    """The first build ended after it was begun: a tenth of the images can't be decoded."""
    for i in range(10):
        (world / f"{i}.png").write_bytes(b"no image %d" % i)
    data = ["--data", world / "pairs.csv"]
    build = ["index", fitted / "run", *GIVEN, *data, "--out", tmp_path / "i"]
    assert "--max-bad" in call(*build, code=2).stderr
    call(*build, "--max-bad", 0.2)
    assert json.loads(call("index", "info", tmp_path / "i", "--json").stdout)["items"]["text"] == 96


@pytest.mark.slow
def test_an_index_of_another_kind_finds_the_same_and_many_items_are_worth_a_hint(
    fitted, world, tmp_path, monkeypatch, index
):
    monkeypatch.setattr("fusemix_core.cli.index.MANY", 96)
    build = ["index", fitted / "run", "--data", world / "pairs.csv", *GIVEN, "--out"]
    assert "--kind faiss" in call(*build, tmp_path / "flat").stderr
    said = call(*build, tmp_path / "lists", "--kind", "faiss least=50 lists=4 probes=4")
    assert "--kind faiss" not in said.stderr and ", faiss)" in said.stdout
    assert list(Path(tmp_path / "lists/vectors/image").glob("*.ivf"))
    found = search(tmp_path / "lists", "a red car", "--json", "-k", 20).stdout
    assert json.loads(found) == json.loads(search(index, "a red car", "--json", "-k", 20).stdout)
    only = ["a red car", "--json", "--where", "thing in ('boat', 'cup')"]
    assert search(tmp_path / "lists", *only).stdout == search(index, *only).stdout
    path = next(Path(tmp_path / "lists/vectors/image").glob("*.ivf"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x99")
    assert path.name in call("index", "check", tmp_path / "lists", code=1).stdout.replace("\n", "")
    call("index", "update", tmp_path / "lists", *GIVEN)
    call("index", "check", tmp_path / "lists")


def test_only_the_modalities_that_are_asked_for_are_indexed(fitted, world, tmp_path):
    call("index", fitted / "run", "--data", world / "pairs.csv", "--out", tmp_path / "one",
         "--to", "image", *GIVEN)  # fmt: skip
    facts = json.loads(call("index", "info", tmp_path / "one", "--json").stdout)
    assert facts["items"] == {"image": 96}
    assert Path(tmp_path / "one/vectors/image").is_dir()
    said = search(tmp_path / "one", "a red car", "--to", "text", code=2).stderr
    assert "no items of 'text'" in said


def test_watching_updates_when_files_change_and_survives_a_bad_one(
    fitted, world, tmp_path, monkeypatch
):
    (world / "pairs.csv").unlink()
    call("index", fitted / "run", "--data", world, "--out", tmp_path / "i", "--to", "image", *GIVEN)
    steps = [lambda: (world / "bad.png").write_bytes(b"bad"), lambda: (world / "bad.png").unlink(),
             lambda: (world / "3.png").unlink()]  # fmt: skip

    def changes(sources, seconds):
        assert (list(sources), seconds) == ([str(world)], 5)
        for step in steps:
            step()
            yield

    monkeypatch.setattr("fusemix_core.search.watching.changes", changes)
    done = call("index", "update", tmp_path / "i", "--watch", 5, *GIVEN)
    counts = [line for line in done.stdout.splitlines() if "added" in line]
    assert counts == ["0 added, 0 removed, 96 items", "0 added, 0 removed, 96 items",
                      "0 added, 1 removed, 95 items"]  # fmt: skip
    assert "can't be decoded" in done.stderr
