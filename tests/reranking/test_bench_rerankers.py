"""`fusemix bench --rerank`: each re-ranker over one fused model, as `fusemix rerank` fits it."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner
from words import TRAINING, Left, Right

from fusemix_core import bench_rerankers
from fusemix_core.benchmark.rerank_page import BEFORE, Row, best, summarised
from fusemix_core.benchmark.summary import Gap
from fusemix_core.cli.app import app
from fusemix_core.errors import ConfigError, UnknownNameError

ENCODERS = {"left": Left, "right": Right}
QUICK = "interaction training.epochs=1 training.batch_size=64"
SAME = {
    "name": "interaction",
    "options": {f"training.{k}": v for k, v in TRAINING["training"].items()},
}
BAD = "interaction width=-1"


@pytest.fixture(scope="module")
def home(done):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEMIX_HOME", str(done.folder / "home"))
        yield


@pytest.fixture(scope="module")
def compared(done, home, tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    how = {"recipe": "cca", "seeds": 2, "out": out}
    return out, bench_rerankers(ENCODERS, done.data, rerankers=[SAME, QUICK, BAD], **how)


def test_a_re_ranker_is_fitted_and_measured_as_rerank_does_it(done, compared):
    line, found = compared[1][0], done.found.results
    assert line["seed"] == 0 and line["weight"] == found["weight"]
    assert line["rows"] == found["splits"] and line["network"] == found["network"]
    for part in ("before", "after", "gain"):
        assert line["measured"][part] == found["measured"][part]


def test_the_gain_is_beside_the_order_of_the_fused_model(compared):
    rows = {row.name: row for row in summarised(compared[1])}
    label, before = compared[1][0]["reranker"], rows[BEFORE]
    row = rows[label]
    assert row.gain.mean == pytest.approx(row.recalls[0] - before.recalls[0])
    assert 0 < row.gain.interval[0] < row.gain.mean < row.gain.interval[1]
    assert row.verdict == "better" and row.cpu_seconds > 0 and row.parameters > 1000
    assert best(compared[1]).best == label and before.verdict == ""


def test_the_report_has_directions_seeds_and_failures(compared):
    text = (compared[0] / "report.md").read_text()
    label = compared[1][0]["reranker"]
    assert f"| {label} | 1 | " in text and f"| left → right | {label} | " in text
    assert f"{BAD} failed: " in text and "95% bootstrap interval over seeds" in text


def test_finished_fits_are_not_made_again_and_failed_ones_are_tried(
    done, compared, tmp_path, monkeypatch
):
    out, lines = Path(shutil.copytree(compared[0], tmp_path / "bench")), compared[1]
    before = (out / "results.jsonl").read_text()
    monkeypatch.setattr("fusemix_core.benchmark.rerankers.Case.model", lambda _: pytest.fail("fit"))
    how = {"recipe": "cca", "seeds": 2, "out": out}
    again = bench_rerankers(ENCODERS, done.data, rerankers=[SAME, QUICK], **how)
    assert again == [line for line in lines if "error" not in line]
    assert (out / "results.jsonl").read_text() == before
    with pytest.raises(pytest.fail.Exception):
        bench_rerankers(ENCODERS, done.data, rerankers=[BAD], **how)


@pytest.mark.parametrize(
    ("mean", "low_high", "verdict"),
    [(2.0, (0.5, 3.0), "better"), (-2.0, (-3.0, -0.5), "worse"), (0.0, (0.0, 0.0), "no difference"),
     (1.0, None, "")],
)  # fmt: skip
def test_a_gain_counts_if_its_interval_leaves_out_0(mean, low_high, verdict):
    assert Row("x", (1.0, 2.0, 3.0), {}, Gap(mean, low_high)).verdict == verdict


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"rerankers": ["interactio"]}, UnknownNameError, "interaction"),
        ({"rerankers": ["interaction colour=1"]}, UnknownNameError, "colour"),
        ({"rerankers": ["interaction negatives=soft"]}, ConfigError, "soft"),
        ({"rerankers": ["interaction", "interaction"]}, ConfigError, "named twice"),
        ({"rerankers": []}, ConfigError, "No re-ranker"),
        ({"token_views": {"left": "grid"}}, ConfigError, "no view 'grid'"),
        ({"encoders": {"left": Left, "right": "columns"}}, ConfigError, "has no tokens"),
        ({"seeds": 0}, ConfigError, "No seed"),
    ],
)
def test_names_are_checked_before_anything_is_encoded(done, tmp_path, more, error, message):
    how = {"encoders": ENCODERS, "recipe": "cca", "out": tmp_path / "b", **more}
    with pytest.raises(error, match=message):
        bench_rerankers(data=done.data, **how)
    assert not (tmp_path / "b").exists()


def test_the_command_compares_re_rankers(done, home, tmp_path):
    file = f"{__file__.rpartition('/')[0]}/words.py"
    asked = ["bench", "-e", f"left={file}:Left", "-e", f"right={file}:Right", "--seeds", "1"]
    asked += ["--data", done.data["source"], "--methods", "cca", "--rerank", QUICK]
    files = ["--latex", str(tmp_path / "t.tex"), "--csv", str(tmp_path / "t.csv")]
    run = CliRunner().invoke(app, [*asked, *files, "--out", str(tmp_path / "out"), "--json"])
    assert run.exit_code == 0, run.output
    (line,) = json.loads(run.stdout)["fits"]
    with open(tmp_path / "t.csv") as rows:
        own = list(csv.DictReader(rows))
    assert own[0]["reranker"] == BEFORE and own[1]["reranker"] == QUICK
    assert float(own[1]["r1"]) == pytest.approx(line["measured"]["after"]["mean_r1"], abs=1e-3)
    assert "training.batch\\_size" in (tmp_path / "t.tex").read_text()
    shown = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "out")])
    assert BEFORE in shown.stdout and "R@1 gained" in shown.stdout


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rerank", "cross", "--target", "right"], "--target can't be used here"),
        (["--rerank", "cross", "--budget", "9"], "--budget can't be used here"),
        (["--rerank", "cross", "--methods", "auto,csa"], "over one recipe, not 2"),
        (["--rerank", "cros"], "Did you mean 'cross'"),
        (["--token-view", "left=grid"], "Tokens are for re-rankers"),
    ],
)
def test_options_that_do_not_fit_are_refused(done, more, message):
    asked = ["bench", "--a", "minilm", "--b", "efficientnet-lite0", "--data", done.data["source"]]
    run = CliRunner().invoke(app, [*asked, *more])
    assert run.exit_code == 2 and message in " ".join(run.output.split())
