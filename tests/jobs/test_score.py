"""Scores of pairs beside the user's own columns, row by row."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from pairs import write_world
from typer.testing import CliRunner

from fusemix_core.cli.app import app
from fusemix_core.config import DataConfig
from fusemix_core.jobs import score as job
from fusemix_core.runs.models import load_model

FILE = Path(__file__).parents[1] / "toys.py"
ENCODERS = {"image": f"{FILE}:ToyImage", "text": f"{FILE}:ToyText"}
TOYS = [x for m, name in ENCODERS.items() for x in ("-e", f"{m}={name}")]
ADDED = ["score", "cosine", "percentile", "rank_text", "rank_image"]


def call(*args, code=0):
    done = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("score"), 120)


@pytest.fixture(scope="module")
def run(world):
    out = world.parent / "run"
    call("align", *TOYS, "-d", world, "--recipe", "cca", "--out", out, "--device", "cpu")
    return out


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_users_rows_and_columns_stay_and_scores_are_the_models(world, run, tmp_path):
    call("score", run, world, "--out", tmp_path / "s.csv", *TOYS)
    before, after = table(world), table(tmp_path / "s.csv")
    assert list(after[0]) == [*before[0], *ADDED]
    assert [{n: row[n] for n in before[0]} for row in after] == before
    model = load_model(run, "cpu", ENCODERS)
    images = model.encode("image", [str(world.parent / row["image"]) for row in before])
    texts = model.encode("text", [row["text"] for row in before])
    scores = model.similarity(images, texts, "image", "text")
    for i, row in enumerate(after):
        assert float(row["score"]) == pytest.approx(float(scores[i, i]), abs=2e-3)
        assert float(row["cosine"]) == pytest.approx(float(images[i] @ texts[i]), abs=2e-3)
        ahead = (scores[i] >= scores[i, i] - 1e-6).sum()
        assert abs(int(row["rank_text"]) - int(ahead)) <= 1
        assert 0 <= float(row["percentile"]) <= 100


def test_percentiles_are_of_random_pairs_of_the_runs_validation_split(world, run):
    printed = json.loads(call("score", run, world, "--json", *TOYS).stdout)
    assert printed["percentile_of"].startswith("random pairs of the validation split")
    assert printed["seen"] == printed["scored"] == len(printed["pairs"]) == 120
    assert printed["ranks_among"] == {"image": 120, "text": 120}
    assert sum(row["percentile"] > 50 for row in printed["pairs"]) > 90


def test_without_the_runs_data_they_are_of_the_table_itself(world, run, tmp_path):
    model = load_model(run, "cpu", ENCODERS)
    found = job.score(model, DataConfig((str(world),)))
    assert found.percentile_of == "random pairs of these data"
    gone = (DataConfig((str(tmp_path / "gone.csv"),)), 0)
    again = job.score(model, DataConfig((str(world),)), validation=gone)
    assert again.percentile_of == "random pairs of these data"


def test_bad_rows_stay_without_a_score_and_with_the_problem(world, run, tmp_path):
    lines = world.read_text().splitlines()
    broken = world.parent / "broken.csv"
    (world.parent / "bad.png").write_bytes(b"not an image")
    broken.write_text(
        "\n".join([*lines[:5], "gone.png,a ghost,x", "bad.png,a blot,x", lines[6]]) + "\n"
    )
    call("score", run, broken, "--out", tmp_path / "s.csv", *TOYS)
    rows = table(tmp_path / "s.csv")
    assert [bool(row["score"]) for row in rows] == [True] * 4 + [False, False, True]
    assert "gone.png" in rows[4]["problem"] and rows[5]["problem"] and not rows[0]["problem"]
    shown = call("score", run, broken, *TOYS).stdout
    assert "5 of 7 rows scored, 2 could not be" in shown


def test_equal_rows_are_scored_each_and_rank_alike(world, run, tmp_path):
    lines = world.read_text().splitlines()
    twice = world.parent / "twice.csv"
    twice.write_text("\n".join([*lines[:9], lines[1], lines[2]]) + "\n")
    call("score", run, twice, "--out", tmp_path / "s.csv", *TOYS)
    rows = table(tmp_path / "s.csv")
    assert rows[8] == rows[0] and rows[9] == rows[1] and rows[8]["score"]


def test_rows_are_scored_in_parts_with_the_same_result(world, run, tmp_path, monkeypatch):
    call("score", run, world, "--out", tmp_path / "whole.jsonl", *TOYS)
    monkeypatch.setattr(job, "_AT_ONCE", 7)
    call("score", run, world, "--out", tmp_path / "parts.jsonl", *TOYS)
    read = [
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("whole.jsonl", "parts.jsonl")
    ]
    for one, other in zip(*read, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_parquet_has_numbers_and_a_column_of_the_same_name_is_kept(world, run, tmp_path):
    own = world.parent / "own.csv"
    lines = world.read_text().splitlines()
    own.write_text("\n".join([lines[0] + ",score", *(f"{x},mine" for x in lines[1:])]) + "\n")
    call("score", run, own, "--out", tmp_path / "s.parquet", *TOYS)
    found = pq.read_table(tmp_path / "s.parquet")
    assert found["score"].to_pylist() == ["mine"] * 120
    assert {"fusemix_score", "fusemix_rank_text"} <= set(found.column_names)
    assert torch.tensor(found["fusemix_score"].to_pylist()).isfinite().all()


def test_an_unknown_form_is_refused_before_anything_is_encoded(run, world, tmp_path):
    assert (
        ".parquet" in call("score", run, world, "--out", tmp_path / "s.xlsx", *TOYS, code=2).stderr
    )
    assert "No pairs given" in call("score", run, *TOYS, code=2).stderr


def test_a_failure_leaves_no_half_table(world, run, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("stop")

    monkeypatch.setattr(job._PairScorer, "__call__", broken)
    model = load_model(run, "cpu", ENCODERS)
    with pytest.raises(RuntimeError):
        job.score(model, DataConfig((str(world),)), tmp_path / "s.csv")
    assert list(tmp_path.iterdir()) == []
