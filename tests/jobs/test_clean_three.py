"""Rows of three modalities, some of which lack a sound, are compared in pairs of modalities."""

import csv
import json
from pathlib import Path

import pytest
from pairs import write_world
from typer.testing import CliRunner

from fusemix_core.cli.app import app

FILE = Path(__file__).parents[1] / "toys.py"
ENCODERS = {"image": "ToyImage", "text": "ToyText", "audio": "ToySound"}
TOYS = [x for m, name in ENCODERS.items() for x in ("-e", f"{m}={FILE}:{name}")]


def call(*args):
    done = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    world = write_world(tmp_path_factory.mktemp("three"), 96, sounds=True)
    out = world.parent / "run"
    call("align", *TOYS, "-d", world, "--recipe", "cca", "--missing", "ok", "--out", out,
         "--device", "cpu")  # fmt: skip
    return out


def test_each_two_modalities_are_judged_in_the_rows_that_have_both(run, tmp_path):
    found = json.loads(call("clean", run, "--out", tmp_path, "--json", *TOYS))
    assert set(found["mispaired_share"]) == {"image-text", "image-audio", "text-audio"}
    assert all(share is not None for share in found["mispaired_share"].values())
    assert found["judged_by"] == "cca"


def test_scores_have_columns_for_each_two_and_are_empty_without_the_item(run, tmp_path):
    pairs = run.parent / "pairs.csv"
    call("score", run, pairs, "--missing", "ok", "--out", tmp_path / "s.csv", *TOYS)
    with open(tmp_path / "s.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"image_text_score", "text_audio_rank_audio"} <= set(rows[0])
    assert all(row["image_text_score"] for row in rows)
    assert all(bool(row["image_audio_score"]) == bool(row["audio"]) for row in rows)
