"""`sotalign` from a table of which some rows have one item, and the same data measured again."""

import csv
import json

import pytest
import toys
from pairs import write_world
from toys import ToyImage, ToyText
from typer.testing import CliRunner

from fusemix_core import align
from fusemix_core.cli.app import app
from fusemix_core.errors import DataError
from fusemix_core.jobs.evaluate import evaluate
from fusemix_core.jobs.measured_data import measured_data
from fusemix_core.runs.config import find_recipe

ENCODERS = {"image": ToyImage, "text": ToyText}


@pytest.fixture
def data(tmp_path):
    """A table of 64 rows; of the last 24 half have a picture alone, half a text alone."""
    path = write_world(tmp_path / "w", count=64)
    rows = list(csv.DictReader(path.open()))
    for i, row in enumerate(rows[40:]):
        row["text" if i % 2 else "image"] = ""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_from_a_table_to_a_model(data, tmp_path):
    settings = ["training.epochs=3", "training.unpaired=5", "dim=8"]
    how = {"overrides": settings, "device": "cpu", "baselines": []}
    done = align(ENCODERS, data, recipe="sotalign", out=tmp_path / "r", **how)
    assert done.results["unpaired"] == {"image": 12, "text": 12}
    assert done.results["rejected"] == 0
    assert sum(done.results["pairs"].values()) == 40
    steps = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    assert all(0 <= row["klot"] < 10 for row in steps if "lr" in row)
    own = measured_data(tmp_path / "r", {}, None, None)
    again = evaluate(done.model, own.config, own.split, seed=own.seed)
    assert again["retrieval"] == done.results["test"]["retrieval"]


def test_a_recipe_without_them_refuses_such_rows(data, tmp_path):
    with pytest.raises(DataError, match="can't be used"):
        align(ENCODERS, data, recipe="auto", device="cpu", out=tmp_path / "r")
    settings = {"recipe": "sotalign", "overrides": ["training.unpaired=0"]}
    with pytest.raises(DataError, match="can't be used"):
        align(ENCODERS, data, device="cpu", out=tmp_path / "r", **settings)


def test_the_plan_tells_how_many_stand_alone(data):
    given = ["--a", f"{toys.__file__}:ToyImage", "--b", f"{toys.__file__}:ToyText"]
    given += ["--data", str(data), "--recipe", "sotalign", "--dry-run"]
    shown = CliRunner().invoke(app, ["align", *given])
    assert "unpaired: 12 image, 12 text" in shown.output
    plan = json.loads(CliRunner().invoke(app, ["align", *given, "--json"]).stdout)
    assert plan["unpaired"] == {"image": 12, "text": 12} and plan["rejected"] == 0


def test_the_recipe_asks_for_them():
    assert find_recipe("sotalign", []).training.unpaired > 0
