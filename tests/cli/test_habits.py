"""What users type and have, and what they are told: near names, numbers of classes, times."""

import csv
import json
from pathlib import Path

import pytest
from pairs import THINGS, write_world
from typer.testing import CliRunner

from fusemix_core.cli.app import app
from fusemix_core.errors import DataError
from fusemix_core.evaluation.prompt_files import read_classes
from fusemix_core.runs.labelled import match_labels

TOYS = Path(__file__).parents[1] / "toys.py"
BOTH = ["--a", f"{TOYS}:ToyImage", "--b", f"{TOYS}:ToyText"]
OWN = ["-e", f"image={TOYS}:ToyImage", "-e", f"text={TOYS}:ToyText"]


def call(*args, code=0):
    done = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("habits")
    write_world(folder / "w", count=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEMIX_HOME", str(folder / "home"))
        args = ["--data", folder / "w/pairs.csv", "--recipe", "procrustes"]
        call("align", *BOTH, *args, "--out", folder / "r")
    return folder


# -- search ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("w/00.png", "w/0.png"),
        ("w/7.PNG", "w/7.png"),
        ("nowhere/a.jpg", "There is no folder nowhere"),
    ],
)
def test_a_mistyped_file_is_not_searched_as_a_text(place, monkeypatch, query, says):
    monkeypatch.chdir(place)
    args = ["search", "r", *OWN, "--data", "w/pairs.csv"]
    done = call(*args, query, code=2)
    assert says in done.stderr and "--from text" in done.stderr
    found = json.loads(call(*args, query, "--from", "text", "--json").stdout)
    assert len(found) == 10


@pytest.mark.parametrize("query", ["a red car.png", "e.g. a car", "car", "1.5", "a/b"])
def test_other_texts_are_searched(place, monkeypatch, query):
    monkeypatch.chdir(place)
    args = ["search", "r", *OWN, "--data", "w/pairs.csv", query, "--json"]
    assert len(json.loads(call(*args).stdout)) == 10


# -- classes ---------------------------------------------------------------------------------------


def labelled(place, folder, label):
    with open(place / "w/pairs.csv") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["image"], row["label"] = str(place / "w" / row["image"]), label(row["thing"])
    with open(folder / "labelled.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "labelled.csv"


def test_labels_may_be_names_numbers_or_written_otherwise(place, tmp_path):
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(THINGS))
    numbered = tmp_path / "classes.json"
    numbered.write_text(json.dumps({name: 10 * i for i, name in enumerate(THINGS)}))
    named = tmp_path / "named.json"
    named.write_text(json.dumps({str(10 * i): name for i, name in enumerate(THINGS)}))
    forms = [
        (classes, lambda thing: thing, ""),
        (classes, lambda thing: str(THINGS.index(thing)), "0 is 'car'"),
        (classes, lambda thing: f"{THINGS.index(thing)}.0", "0.0 is 'car'"),
        (classes, str.title, "'Car' is 'car'"),
        (numbered, lambda thing: str(10 * THINGS.index(thing)), "0 is 'car'"),
        (numbered, lambda thing: thing, ""),
        (named, lambda thing: str(10 * THINGS.index(thing)), "0 is 'car'"),
    ]
    results = []
    for file, label, note in forms:
        data = labelled(place, tmp_path, label)
        args = ["--data", data, "--allow-outside", "--classes", file, "--json"]
        done = call("eval", place / "r", *OWN, *args)
        found = json.loads(done.stdout)
        results.append(found["zero-shot"])
        assert done.stderr.count(note) == 1 or not note
        assert any(note in warning for warning in found["warnings"]) or not note
    assert all(one == results[0] for one in results)


def test_a_label_of_no_class_is_an_error_with_a_near_name(place, tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(THINGS))
    data = labelled(place, tmp_path, lambda thing: "hose" if thing == "house" else thing)
    args = ["--data", data, "--allow-outside", "--classes", tmp_path / "classes.txt"]
    assert "Did you mean 'house'" in call("eval", place / "r", *OWN, *args, code=2).stderr


def test_names_win_over_numbers_and_case_over_guesses():
    assert match_labels(["1", "0"], ["0", "1"])[0] == {"0": 0, "1": 1}
    assert match_labels(["2", "0"], ["a", "b"])[0] == {"a": 0, "b": 1}
    index, note = match_labels(["CAT"], ["cat", "Cat"])
    assert "CAT" not in index and not note
    assert match_labels(["cat", "Dog"], ["cat", "dog", "Cat"])[0]["Dog"] == 1


@pytest.mark.parametrize(
    "text", ['{"a": 0, "b": 0}', '{"a": 0, "a": 1}', '{"a": "x"}', '{"a": true}', "{}"]
)
def test_numbers_of_classes_must_differ(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(DataError):
        read_classes(tmp_path / "c.json")


# -- plans -----------------------------------------------------------------------------------------


def test_select_without_encoders_shows_no_empty_table(place, tmp_path):
    args = ["--data", place / "w/pairs.csv", "--selector", "uniform", "--pairs", "12"]
    assert "Nothing." not in call("select", *BOTH, *args, "--out", tmp_path / "few.csv").stdout


def test_more_pairs_than_there_are_is_a_note_of_bench(place, tmp_path):
    args = ["--methods", "procrustes", "--seeds", "1", "--pairs", "500", "--out", tmp_path / "b"]
    done = call("bench", *BOTH, "--data", place / "w/pairs.csv", *args)
    assert done.stderr.count("500 pairs are asked for, and 54 are there") == 1
    assert " fitted " in done.stdout and " 48 " in done.stdout


def test_an_unknown_time_and_texts_that_may_be_cut_are_in_the_plan(place, tmp_path):
    data = labelled(place, tmp_path, lambda thing: thing)
    rows = data.read_text().splitlines()
    rows[1] = rows[1].replace("a red car number 0", "a red car " * 30)
    data.write_text("\n".join(rows))
    args = ["align", *BOTH, "--data", data, "--allow-outside", "--recipe", "procrustes"]
    done = call(*args, "--dry-run")
    assert "procrustes (time unknown on this machine yet)" in done.stdout
    assert "About 1 of 60 text items may be cut" in done.stderr
    plan = json.loads(call(*args, "--dry-run", "--json").stdout)
    assert sum("may be cut" in warning for warning in plan["warnings"]) == 1
    call(*args, "--out", tmp_path / "r")
    results = json.loads((tmp_path / "r/results.json").read_text())
    assert not any("may be cut" in warning for warning in results["warnings"])
    assert len(results["warnings"]) == len(set(results["warnings"]))


# -- missing entries -------------------------------------------------------------------------------


def test_rows_that_lack_an_entry_may_be_allowed_and_are_counted_apart(place, tmp_path):
    data = labelled(place, tmp_path, lambda thing: thing)
    rows = data.read_text().splitlines()
    for i in range(1, 13):
        cells = rows[i].split(",")
        rows[i] = ",".join([cells[0], "", *cells[2:]])
    rows[20] = rows[20].replace(".png", ".gone")
    data.write_text("\n".join(rows))
    args = ["align", *BOTH, "--data", data, "--allow-outside", "--recipe", "procrustes"]
    refused = call(*args, "--dry-run", code=2)
    assert "13 of 60 rows" in refused.stderr and "--missing ok" in refused.stderr
    assert "1 of 60 rows" in call(*args, "--missing", "ok", "--dry-run", code=2).stderr
    args += ["--missing", "ok", "--max-bad", "0.02", "--out", tmp_path / "r"]
    done = call(*args)
    assert done.stderr.count("60 rows seen, 47 used, 1 rejected, 12 incomplete") == 1
    results = json.loads((tmp_path / "r/results.json").read_text())
    assert (results["rows"]["incomplete"], results["rows"]["rejected"]) == (12, 1)
    lines = [json.loads(x) for x in (tmp_path / "r/rejected.jsonl").read_text().splitlines()]
    assert sum(line.get("incomplete", False) for line in lines) == 12 and len(lines) == 13
