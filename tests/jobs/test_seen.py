"""A model knows what it was trained on, however data are named, copied or converted."""

import csv
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from pairs import write_world
from toys import ToyImage, ToySound, ToyText
from typer.testing import CliRunner

from fusemix_core import FusedModel, align, extend
from fusemix_core.cli.app import app
from fusemix_core.config import DataConfig
from fusemix_core.jobs.evaluate import evaluate

TOYS = Path(__file__).parents[1] / "toys.py"
OWN = ["-e", f"image={TOYS}:ToyImage", "-e", f"text={TOYS}:ToyText"]
BY_FILE = {"image": f"{TOYS}:ToyImage", "text": f"{TOYS}:ToyText"}
ENCODERS = {"image": ToyImage, "text": ToyText}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run on 60 pairs that named its data as `pairs.csv`."""
    folder = tmp_path_factory.mktemp("seen")
    write_world(folder / "w", count=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEMIX_HOME", str(folder / "home"))
        patch.chdir(folder / "w")
        args = ["--data", "pairs.csv", "--recipe", "procrustes", "--out", "../r"]
        _call("align", "--a", f"{TOYS}:ToyImage", "--b", f"{TOYS}:ToyText", *args)
    return folder


def _call(*args, code=0):
    done = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def measured(model, *args):
    done = _call("eval", model, *OWN, *args, "--json")
    return json.loads(done.stdout), done.stderr


def queries(found):
    return found["retrieval"]["directions"]["image->text"]["queries"]


def test_the_runs_own_data_are_known_by_any_spelling(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place / "w")
    os.symlink(place / "w/pairs.csv", tmp_path / "link.csv")
    first, told = measured("../r")
    assert queries(first) == 6 and "trained on" not in told
    assert first["trained_on"]["pairs"] == 0
    for spelling in ("pairs.csv", "./pairs.csv", place / "w/pairs.csv", "../w/pairs.csv"):
        found, told = measured("../r", "--data", spelling)
        assert queries(found) == 6 and "trained on" not in told
        assert found["retrieval"] == first["retrieval"]


def test_a_run_can_be_measured_from_anywhere(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, _ = measured(place / "r")
    assert queries(found) == 6
    table = {"source": ["pairs.csv"], "base": str(place / "w")}
    assert DataConfig(**table).located().source == (f"{place / 'w'}/pairs.csv",)
    _call("align", "--out", place / "r", "--resume")


def copied(place, folder):
    shutil.copytree(place / "w", folder / "copy")
    return folder / "copy/pairs.csv"


def with_absolute_paths(place, folder):
    rows = _rows(place)
    path = folder / "pairs.jsonl"
    lines = [{"image": str(place / "w" / row["image"]), "text": row["text"]} for row in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def with_bytes(place, folder):
    rows = _rows(place)
    images = [(place / "w" / row["image"]).read_bytes() for row in rows]
    table = pa.table({"image": images, "text": [row["text"] for row in rows]})
    pyarrow.parquet.write_table(table, folder / "pairs.parquet")
    return folder / "pairs.parquet"


def _rows(place):
    with open(place / "w/pairs.csv") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("convert", [copied, with_absolute_paths, with_bytes])
def test_training_pairs_are_known_by_their_content(convert, place, tmp_path):
    data = convert(place, tmp_path)
    found, told = measured(place / "r", "--data", data, "--allow-outside")
    assert queries(found) == 60
    assert told.count("48 of 60 pairs were trained on") == 1
    assert found["trained_on"]["pairs"] == 48 and found["trained_on"]["of"] == 60
    assert found["trained_on"]["items"]["image"] == {"trained_on": 48, "of": 60}
    assert sum("48 of 60 pairs" in warning for warning in found["warnings"]) == 1


def test_a_copied_model_and_python_know_it_too(place, tmp_path):
    shutil.copytree(place / "r/model", tmp_path / "model")
    found, told = measured(tmp_path / "model", "--data", place / "w/pairs.csv")
    assert queries(found) == 60 and "48 of 60 pairs were trained on" in told
    model = FusedModel.from_pretrained(tmp_path / "model", encoders=BY_FILE)
    found = evaluate(model, DataConfig((str(place / "w/pairs.csv"),)), "all")
    assert found["trained_on"]["pairs"] == 48


def test_classified_items_that_were_trained_on_are_told(place, tmp_path):
    (tmp_path / "classes.txt").write_text("car\nhouse\nbird\ncup\ntree\nboat\ncoat\ndoor\n")
    args = ["--data", copied(place, tmp_path), "--classes", tmp_path / "classes.txt"]
    found, told = measured(place / "r", *args, "--label-column", "thing")
    assert "48 of 60 items were trained on" in told and found["trained_on"]["pairs"] == 48


def test_new_data_are_new_and_items_in_other_pairs_are_told(place, tmp_path):
    shutil.copytree(place / "w", tmp_path / "w")
    rows = _rows(place)
    for row in rows:
        row["text"] = f"another text of {row['image']}"
    with open(tmp_path / "w/pairs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    found, told = measured(place / "r", "--data", tmp_path / "w/pairs.csv")
    assert (
        found["trained_on"]["pairs"] == 0
        and found["trained_on"]["items"]["text"]["trained_on"] == 0
    )
    assert "48 of 60 image items were trained on, in other pairs" in told


def test_the_keys_are_saved_short_and_can_be_left_out(place, tmp_path):
    model = FusedModel.from_pretrained(place / "r/model", encoders=BY_FILE)
    assert {m: len(keys) for m, keys in model.seen.items()} == {"image": 48, "text": 48}
    assert "32 bits" in (place / "r/model/README.md").read_text()
    model.seen = {}
    model.save_pretrained(tmp_path / "m")
    assert "32 bits" not in (tmp_path / "m/README.md").read_text()
    found, told = measured(tmp_path / "m", "--data", place / "w/pairs.csv")
    assert "trained_on" not in found and "trained on" not in told


def test_an_extended_model_knows_what_both_fits_saw(tmp_path):
    data = write_world(tmp_path / "w", sounds=True)
    first = align(
        ENCODERS, {"source": data, "test_fraction": 0.5}, recipe="procrustes", out=tmp_path / "a"
    )
    second = extend(first.model, {"audio": ToySound}, data, recipe="procrustes", out=tmp_path / "b")
    assert set(second.model.seen) == {"image", "text", "audio"}
    old, new = (set(done.model.seen["image"].tolist()) for done in (first, second))
    assert old < new and "audio" not in first.model.seen
