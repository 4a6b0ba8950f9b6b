"""A run is compared with a recipe on the same rows, and with finished models."""

import json

import pytest
from pairs import THINGS, write_world
from toys import ToyImage, ToyText

from fusemix_core import align
from fusemix_core.cli.groups import EvaluatorOptions
from fusemix_core.config import DataConfig
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.jobs.evaluate import evaluate, measure_classes

TOYS = {"image": ToyImage, "text": ToyText}
HOW = {"recipe": "fusemix", "device": "cpu", "overrides": ["training.epochs=3", "adapter.blocks=1",
       "dim=8"]}  # fmt: skip
CLOSED = {"recipe": "cca", "device": "cpu"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("baselines"))


@pytest.fixture(scope="module")
def closed(world):
    """A finished run of the recipe that others are compared with."""
    return align(TOYS, world, out=world.parent / "closed", **CLOSED)


@pytest.fixture(scope="module")
def compared(world, closed):
    data = {"source": str(world), "facts": {"kind": "thing"}}
    shots = {"name": "zero-shot", "options": {"fact": "kind", "resamples": 10}}
    return align(
        TOYS, data, out=world.parent / "compared", **HOW, evaluators=[shots, "groups"],
        baselines=["cca", str(closed.folder.path)],
    )  # fmt: skip


def test_the_recipe_and_the_run_before_are_measured_on_the_same_rows(closed, compared):
    found = json.loads(compared.folder.results.read_text())
    assert list(found["baselines"]) == ["cca", "closed"]
    assert "skipped" not in str(found["baselines"])
    beside = found["test"]["retrieval"]["baselines"]
    own = closed.results["test"]["retrieval"]
    for name in ("cca", "closed"):  # fitted again, and loaded: the same numbers
        assert beside[name]["mean_r1"] == own["mean_r1"]
        assert beside[name]["directions"]["text->image"]["map"] == pytest.approx(
            own["directions"]["text->image"]["map"]
        )
    assert set(found["test"]["zero-shot"]["baselines"]) == {"chance", "cca", "closed"}
    assert "baselines" in str(found["test"]["groups"]["kind"])
    assert list(found["validation"]["retrieval"]["baselines"]) == ["chance"]


def test_report_and_card_have_the_baselines(compared):
    html = compared.folder.report.read_text(encoding="utf-8")
    assert "chance 16.7%, cca " in html and "regularised linear CCA" in html
    card = (compared.folder.model / "README.md").read_text()
    assert "**retrieval baselines**" in card and "| closed |" in card


def test_a_recipe_is_not_compared_with_itself(closed):
    assert closed.results["baselines"] == {}
    assert list(closed.results["test"]["retrieval"]["baselines"]) == ["chance"]


def test_a_run_on_other_rows_is_refused_before_anything_is_encoded(world, closed, tmp_path):
    before = [str(closed.folder.path)]
    with pytest.raises(ConfigError, match="other rows"):
        align(TOYS, world, out=tmp_path / "r", **CLOSED, seed=1, baselines=before)
    with pytest.raises(UnknownNameError, match="'ccaa'"):
        align(TOYS, world, out=tmp_path / "r", **CLOSED, baselines=["ccaa"])
    assert not (tmp_path / "r").exists()


def test_one_that_cannot_be_fitted_is_left_out_with_the_reason(world, tmp_path, monkeypatch):
    monkeypatch.setattr("fusemix_core.runs.compare.MOST_WORK", 10)
    done = align(TOYS, world, out=tmp_path / "r", **HOW)
    assert "takes too long" in done.results["baselines"]["cca"]["skipped"]
    assert list(done.results["test"]["retrieval"]["baselines"]) == ["chance"]
    assert "The baseline cca is left out: fitting" in done.folder.report.read_text()


def test_eval_compares_finished_models_in_retrieval_and_zero_shot(world, closed, compared):
    before, data = [str(closed.folder.path)], DataConfig(source=(str(world),))
    found = evaluate(compared.model, data, baselines=before)["retrieval"]["baselines"]
    assert found["closed"]["mean_r1"] == closed.results["test"]["retrieval"]["mean_r1"]
    how = {"label_column": "thing", "split": "test", "baselines": before}
    found = measure_classes(compared.model, data, THINGS, **how).metrics["zero-shot"]["baselines"]
    assert found["chance"]["top1"] == 12.5 and "ahead_interval" in found["closed"]
    with pytest.raises(ConfigError, match="no training rows"):
        evaluate(compared.model, data, baselines=["cca"])


def test_the_option_adds_to_what_is_compared_anyhow():
    assert EvaluatorOptions().table() == {}
    assert EvaluatorOptions(baseline=["runs/1"]).table() == {"baselines": ["cca", "runs/1"]}
    assert EvaluatorOptions(baseline=["none"]).table() == {"baselines": []}
