"""`bench_fusers`: every fuser on the same rows, with baselines beside, and failures counted."""

import json

import numpy as np
import pytest
from toys import ToyText
from typer.testing import CliRunner

from fusemix_core import bench_fusers
from fusemix_core.benchmark.fusers import summarised
from fusemix_core.cli.app import app
from fusemix_core.errors import ConfigError

ENCODERS = {"text": ToyText, "size": "columns"}
WORDS = ["river", "engine", "cloud"]


def rows(count):
    """Rows whose class is told by a word and a number together, column → values."""
    draw = np.random.default_rng(0)
    word, number = draw.integers(0, 3, count), draw.normal(size=count)
    return {
        "text": [f"{WORDS[w]} {draw.integers(100)}" for w in word],
        "length": [f"{v:.4f}" for v in number],
        "price": [f"{3 * w + v:.3f}" for w, v in zip(word, number, strict=True)],
        "kind": [f"k{k}" for k in np.digitize(word + 0.8 * number, [0.5, 1.5])],
    }


DATA = {"source": rows(count=120), "columns": {"size": "length"}}
FUSERS = ["stack", "block", "mlp width=8"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    return out, bench_fusers(ENCODERS, DATA, target="kind", methods=FUSERS, seeds=2, out=out)


def test_fusers_stand_beside_baselines_and_single_modalities(done):
    found = {one.name: one for one in summarised(done[1])}
    assert {"no modality", "text", "size", *FUSERS} <= set(found)
    assert found["stack"].mean > found["no modality"].mean
    assert found["stack"].half is not None and found["stack"].seeds == 2
    single = max(found["text"].mean, found["size"].mean)
    assert found["stack"].ahead == pytest.approx(found["stack"].mean - single, abs=0.1)


def test_finished_seeds_are_not_made_again_and_are_on_the_page(done):
    out, lines = done
    before = (out / "results.jsonl").read_text()
    again = bench_fusers(ENCODERS, DATA, target="kind", methods=FUSERS, seeds=2, out=out)
    assert [one["key"] for one in again] == [one["key"] for one in lines]
    assert (out / "results.jsonl").read_text() == before
    assert "mlp width=8" in (out / "report.md").read_text()


def test_other_targets_of_the_same_items_are_measured_anew(done):
    out, lines = done
    source = {**DATA["source"], "kind": DATA["source"]["kind"][::-1]}
    data = {**DATA, "source": source}
    (line,) = bench_fusers(ENCODERS, data, target="kind", methods=["stack"], seeds=1, out=out)
    old = lines[0]["candidates"]["stack"]["metrics"]["accuracy"]
    assert line["candidates"]["stack"]["metrics"]["accuracy"] < old


def test_a_fuser_that_cannot_be_fitted_is_said_and_others_are_measured(tmp_path):
    methods = ["block", "mlp width=-1"]
    (line,) = bench_fusers(ENCODERS, DATA, target="kind", methods=methods, seeds=1, out=tmp_path)
    assert "mlp width=-1" in line["errors"] and "block" in line["candidates"]
    assert "mlp width=-1 failed" in (tmp_path / "report.md").read_text()


def test_the_command_compares_fusers_of_a_target(tmp_path):
    table = rows(count=80)
    lines = [
        json.dumps(dict(zip(table, row, strict=True))) for row in zip(*table.values(), strict=True)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    asked = ["bench", "-e", "size=columns", "--column", "size=length", "--target", "price"]
    asked += ["--data", str(tmp_path / "rows.jsonl"), "--methods", "stack", "--seeds", "1"]
    done = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["seeds"][0]["metric"] == "r2"
    refused = CliRunner().invoke(app, [*asked, "--budget", "100"])
    assert refused.exit_code == 2 and "--budget can't be used here" in refused.output


def test_two_fusers_of_one_name_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="twice"):
        bench_fusers(ENCODERS, DATA, target="kind", methods=["mlp", "mlp"], out=tmp_path)
