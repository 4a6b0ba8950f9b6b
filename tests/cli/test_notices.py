"""Every command that reads data tells what became of the rows, once, with and without `--json`."""

import csv
import json
from pathlib import Path

import pytest
from pairs import write_world
from typer.testing import CliRunner

from fusemix_core.cli.app import app

TOYS = Path(__file__).parents[1] / "toys.py"
A, B, C = (f"{TOYS}:Toy{name}" for name in ("Image", "Text", "Sound"))
BOTH = ["--a", A, "--b", B]
FAST = ["--recipe", "procrustes"]
OWN = ["-e", f"image={A}", "-e", f"text={B}"]
NOTE = "text is read from column 'caption', not from 'title'."
COUNTS = "66 rows seen, 64 used, 1 rejected, 1 repeated"


def call(*args):
    result = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, and data with two columns of texts, a row that repeats another and a bad one."""
    folder = tmp_path_factory.mktemp("notices")
    with open(write_world(folder / "w", sounds=True)) as file:
        rows = list(csv.DictReader(file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEMIX_HOME", str(folder / "home"))
        call("align", *BOTH, *FAST, "--data", folder / "w/pairs.csv", "--out", folder / "r")
    for row in rows:
        row["caption"], row["title"] = row.pop("text"), "a title"
    bad = {**rows[0], "image": "not-there.png", "caption": "nothing", "audio": ""}
    with open(folder / "w/odd.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([*rows, rows[0], bad])
    (folder / "classes.txt").write_text("car\nhouse\nbird\ncup\ntree\nboat\ncoat\ndoor\n")
    return folder


COMMANDS = {
    "align": ["align", *BOTH, *FAST, "--out", "{new}"],
    "align --dry-run": ["align", *BOTH, "--dry-run"],
    "extend": ["extend", "{model}", *OWN, "-e", f"audio={C}", *FAST, "--out", "{new}"],
    "eval": ["eval", "{model}", *OWN],
    "classify": ["eval", "{model}", *OWN, "--classes", "{classes}", "--label-column", "thing"],
    "encode": ["encode", *BOTH],
    "search": ["search", "{model}", *OWN, "a red car", "--from", "text", "--to", "text"],
    "rank": ["rank", *BOTH, "--shuffles", "2"],
    "rank --dry-run": ["rank", *BOTH, "--dry-run"],
    "bench --dry-run": ["bench", *BOTH, "--methods", "procrustes", "--dry-run"],
    "select": ["select", *BOTH, "--selector", "uniform", "--pairs", "9", "--out", "{few}"],
    "bench": ["bench", *BOTH, "--methods", "procrustes", "--seeds", "2", "--out", "{new}"],
}  # fmt: skip
NO_TEXT = ("classify",)
COUNTS_OF = {
    "encode": "66 rows seen, 65 used, 1 of these in part, 0 rejected, 1 repeated",
    "search": "66 rows seen, 65 used, 0 rejected, 1 repeated",
}


SHOWN = ("align", "classify", "encode", "bench --dry-run")
"""Those that are also checked without `--json` each time; the others in the long form."""
FORMS = [
    pytest.param(
        name,
        as_json,
        id=f"{name}-{'json' if as_json else 'shown'}",
        marks=() if as_json or name in SHOWN else pytest.mark.long,
    )
    for name in COMMANDS
    for as_json in (False, True)
]


@pytest.mark.parametrize(("name", "as_json"), FORMS)
def test_counts_and_notes_are_told_once(name, as_json, place, tmp_path):
    named = {"model": place / "r", "classes": place / "classes.txt", "new": tmp_path / "new",
             "few": tmp_path / "few.csv"}  # fmt: skip
    args = [arg.format(**named) for arg in COMMANDS[name]] + ["--json"] * as_json
    done = call(*args, "--data", place / "w/odd.csv", "--max-bad", "0.1")
    counts = COUNTS_OF.get(name, COUNTS)
    assert done.stderr.count(counts) == 1, done.stderr
    noted = 0 if name in NO_TEXT else 1
    assert done.stderr.count(NOTE) == noted, done.stderr
    column = "thing" if name in NO_TEXT else "caption"
    assert f"text from '{column}'" in done.stderr
    if not as_json:
        assert NOTE not in done.stdout and counts not in done.stdout
        return
    found = json.loads(done.stdout)
    if name == "bench":  # of several sets, which have rows each: as notes
        assert sum(NOTE in note for note in found["notes"]) == noted
        assert sum(counts in note for note in found["notes"]) == 1
    elif isinstance(found, dict):
        rows = found["rows"]
        assert [rows[n] for n in ("seen", "used", "rejected", "repeated")] == [66, 64, 1, 1]
        assert sum(NOTE in warning for warning in found["warnings"]) == noted
        assert found["columns"]["text"] == [column]


def test_a_run_keeps_what_was_told(place, tmp_path):
    args = ["--data", place / "w/odd.csv", "--max-bad", "0.1", "--out", tmp_path / "r"]
    call("align", *BOTH, *FAST, *args)
    results = json.loads((tmp_path / "r/results.json").read_text())
    assert results["rows"] == {
        "seen": 66, "used": 64, "repeated": 1, "rejected": 1, "incomplete": 0, "partial": 0,
        "merged": 0,
    }  # fmt: skip
    (note,) = [warning for warning in results["warnings"] if NOTE in warning]
    report = (tmp_path / "r/report.html").read_text()
    assert report.count("not from &#39;title&#39;") == 1
    card = (tmp_path / "r/model/README.md").read_text()
    assert card.count("not from 'title'") == 1 and str(place) not in card
