"""`--budget`: a fit that ends in time, and what can't be a budget."""

import json
from pathlib import Path

import pytest
from pairs import write_world
from typer.testing import CliRunner

import fusemix_core
from fusemix_core.aligners import auto
from fusemix_core.cli.app import app
from fusemix_core.errors import ConfigError

TOYS = Path(__file__).parents[1] / "toys.py"
BOTH = ["--a", f"{TOYS}:ToyImage", "--b", f"{TOYS}:ToyText"]
SMALL = ["--set", "adapter.hidden=8", "--set", "training.evaluate_steps=2"]


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(auto, "LEAST", 20)
    write_world(tmp_path, count=60)
    return tmp_path


def call(*args, code=0):
    done = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def steps(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return max(line["step"] for line in lines)


def test_a_budget_of_steps_bounds_the_training(world):
    args = [*BOTH, "--data", world / "pairs.csv", *SMALL, "--budget", "4 steps"]
    done = call("align", *args, "--out", world / "r")
    assert steps(world / "r") == 4
    assert "Kernel CCA" in done.stderr and "A network beside it" in done.stderr
    assert (world / "r/model/config.json").exists()


def test_a_budget_from_python(world):
    run = fusemix_core.align(
        {"image": f"{TOYS}:ToyImage", "text": f"{TOYS}:ToyText"},
        world / "pairs.csv",
        overrides=SMALL[1::2],
        budget="2 steps",
        out=world / "r",
    )
    assert steps(run.folder.path) == 2


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--budget", "soon"], "isn't a budget"),
        (["--recipe", "fusemix", "--budget", "10m"], "training.max_steps"),
    ],
)
def test_what_can_not_be_kept_to_is_refused_before_anything_is_encoded(world, args, says):
    where = ["--data", world / "pairs.csv", "--out", world / "r"]
    done = call("align", *BOTH, *where, *args, code=2)
    assert says in done.stderr
    assert not (world / "r").exists() and not (world / "home").exists()


def test_a_budget_in_a_config_is_checked_too(world):
    with pytest.raises(ConfigError, match="budget"):
        fusemix_core.align(
            {"image": f"{TOYS}:ToyImage", "text": f"{TOYS}:ToyText"},
            world / "pairs.csv",
            recipe={"name": "auto", "aligner": {"name": "auto", "options": {"budget": "5"}}},
        )
