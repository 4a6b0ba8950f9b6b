"""`rerank`, its artefact, and what searches make of it."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from words import TRAINING, Left

from fusemix_core import align, load, rerank
from fusemix_core.cli import main
from fusemix_core.cli.hits import Line, anew_of, print_hits
from fusemix_core.cli.rerank import show_result
from fusemix_core.config import DataConfig
from fusemix_core.errors import (
    ArtefactError,
    ConfigError,
    RunExistsError,
    UnknownNameError,
)
from fusemix_core.jobs.rerank import rerank_config
from fusemix_core.jobs.search import Gallery
from fusemix_core.reports.rerank import verdict
from fusemix_core.reranked import RerankModel
from fusemix_core.runs.candidates import Reranking, load_reranker
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.reranking import make_rerank_plan
from fusemix_core.search import Collection


def test_recall_rises_on_the_test_split_and_the_report_has_it(done):
    results = done.found.results
    measured = results["measured"]
    gain = measured["gain"]["mean"]
    assert results["split"] == "test" and results["weight"] > 0
    assert gain["r1_interval"][0] > 0 and "helps" in results["verdict"]
    for way in ("left->right", "right->left"):
        before, after = (measured[when]["directions"][way]["r1"] for when in ("before", "after"))
        assert measured["gain"][way]["r1"] == pytest.approx(after - before)
    assert measured["cost"]["ms"] > 0 and measured["cost"]["candidates"] == 26
    text = done.found.folder.report.read_text()
    assert "paired 95% intervals" in text and "ms a query" in text
    assert json.loads(done.found.folder.results.read_text())["verdict"] == results["verdict"]


def test_the_terminal_says_each_thing_once(done, capsys):
    show_result(done.found, json=False)
    printed = capsys.readouterr().out
    assert printed.replace("\n", " ").count(done.found.results["verdict"]) == 1
    assert len(set(done.stages)) == len(done.stages) and "Encoding tokens" in done.stages


def test_the_run_s_own_data_split_and_tokens_are_taken(done):
    assert done.found.results["splits"] == {
        name: len(rows) for name, rows in done.first.encoded.dataset.splits.items()
    }
    views = {m: one["view"] for m, one in done.found.results["encoders"].items()}
    assert views == {"left": "tokens-layers", "right": "tokens-layers"}


@pytest.mark.parametrize(("split", "says"), [("test", "helps"), ("validation", "chose the weight")])
def test_only_a_test_split_says_that_re_ranking_helps(done, split, says):
    found = done.found.results
    assert says in verdict(found["weight"], found["measured"], split)


def test_another_seed_does_not_bring_training_rows_into_the_test(done):
    run = str(done.first.folder.path)
    config = rerank_config({"model": run, "seed": 7})
    plan = make_rerank_plan(config, done.first.model)
    assert config.seed == 7
    for name, rows in done.first.encoded.dataset.splits.items():
        assert plan.dataset.splits[name].tolist() == rows.tolist()
    with pytest.raises(ConfigError, match="another test_fraction"):
        rerank_config({"model": run, "data": {"test_fraction": 0.4}})
    with pytest.raises(ConfigError, match="another group_by"):
        rerank_config({"model": run, "data": {"group_by": "left"}})


def test_measured_rows_that_the_model_was_trained_on_are_reported(done, tmp_path):
    assert not done.found.results["warnings"]
    copy = shutil.copy(done.data["source"], tmp_path / "copy.csv")
    config = rerank_config({"model": str(done.first.folder.path), "data": {"source": [str(copy)]}})
    notes = []
    plan = make_rerank_plan(replace(config, seed=7), done.first.model, notes.append)
    assert [one for one in notes if "of 26 pairs were trained on" in one] == plan.warnings
    assert len(plan.warnings) == 1


def test_before_is_what_the_run_itself_measured(done):
    own = done.first.results["test"]["retrieval"]["directions"]
    before = done.found.results["measured"]["before"]["directions"]
    for way, row in before.items():
        assert row["r1"] == own[way]["r1"] and row["mrr"] == pytest.approx(own[way]["mrr"])


def test_a_saved_re_ranker_loads_and_knows_its_model(done, tmp_path):
    model = load(done.folder / "rerank")
    assert isinstance(model, RerankModel) and model.weights == done.found.model.weights
    model.check(load(done.folder / "run"))
    other = align({"left": Left, "right": Left}, done.data, recipe="cca", out=tmp_path / "other")
    with pytest.raises(ArtefactError, match="belongs to another model"):
        model.check(other.model)
    with pytest.raises(ArtefactError, match="not of 'reranker'"):
        load_reranker(done.folder / "run", done.first.model)


def test_a_damaged_weight_is_refused(done, tmp_path):
    done.found.model.save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m/config.json").read_text())
    config["metrics"]["rerank"]["weights"]["left->right"] = "much"
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    with pytest.raises(ArtefactError, match="how its score is mixed"):
        load(tmp_path / "m")


def test_rescoring_by_items_and_by_tokens_agrees_and_a_weight_of_0_changes_nothing(done):
    model, texts = done.found.model, ["b1 b2 b3 n0", "b3 b2 b1 n1", "b9 b8 b7 n2"]
    scores = torch.tensor([0.3, 0.2, 0.1])
    new = model.rescore("left", "a1 a2 a3 n0", "right", texts, scores)
    tokens = model.tokens("left", ["a1 a2 a3 n0"]), model.tokens("right", texts)
    again = model.rescore("left", tokens[0], "right", tokens[1], scores)
    torch.testing.assert_close(new, again)
    assert not torch.equal(new, scores.double()) and new.argmin() == 2
    assert torch.equal(model.rescore("left", "a1", "left", texts, scores), scores.double())


def test_a_search_of_data_and_one_of_an_index_are_ranked_anew_alike(done, tmp_path):
    model, reranker = done.first.model, done.found.model
    config = DataConfig(source=(done.data["source"],))
    gallery = Gallery(model, "right", config, reranker=reranker)
    made = Collection.create(tmp_path / "i", model, config, ["right"])
    reranking = Reranking(reranker)
    assert made.store_tokens(reranking) == 260
    plain, better = 0, 0
    data = done.first.encoded.dataset
    left, right = (data.items[m].references for m in data.modalities)
    for query, partner in data.links[data.splits["test"][:12]].tolist():
        found = made.ask("left", left[query], 5, target="right", reranking=reranking)
        items = [one.item for one in found]
        assert [one.item for one in gallery.search(left[query], "left", 5)] == items
        first = made.ask("left", left[query], 40, target="right")
        assert set(items) <= {one.item for one in first[: reranker.top_k]}
        plain += first[0].item == right[partner]
        better += items[0] == right[partner]
    assert better > plain
    second = made.ask("left", left[query], 3, 2, target="right", reranking=reranking)
    assert [one.key for one in second] == [one.key for one in found[2:5]]


def test_a_search_says_if_the_re_ranker_changes_nothing(done, monkeypatch):
    notes, reporter = [], Reporter()
    monkeypatch.setattr(reporter, "note", notes.append)
    monkeypatch.setattr(RerankModel, "weight", lambda *_: 0.0)
    config = DataConfig(source=(done.data["source"],))
    galleries = [Gallery(done.first.model, "right", config, reporter, (), one)
                 for one in (done.found.model, None)]  # fmt: skip
    found, plain = (one.search("a1 a2 a3", "left", 5) for one in galleries)
    assert [one.item for one in found] == [one.item for one in plain]
    assert "changes nothing from left to right" in notes[-1]
    assert anew_of(done.found.model, "left", "right") == 0


def test_the_hits_say_how_many_were_ranked_anew(done, capsys):
    anew = anew_of(done.found.model, "left", "right")
    assert (anew, anew_of(None, "left", "right")) == (done.found.model.top_k, 0)
    print_hits([Line(1, 0.5, "a map")], True, [], 1_516, anew)
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"1,516 items searched; the first {anew} ranked anew, with the model's scores"
    )


def test_tokens_come_from_the_store_and_a_missing_one_is_encoded(done, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(done.folder / "home"))
    reranking = Reranking(done.found.model)
    items = done.first.encoded.dataset.items["right"]
    monkeypatch.setattr(done.found.model, "tokens", lambda *_: pytest.fail("encoded again"))
    found = reranking.tokens("right", items.keys[:4], lambda i: items.references[i])
    assert found.values.shape == (4, 3, 32)
    monkeypatch.undo()
    new = reranking.tokens("right", np.array([[1, 2]], np.uint64), lambda i: "b1 b2 b3 new")
    wanted = done.found.model.tokens("right", ["b1 b2 b3 other"])
    torch.testing.assert_close(new.values, wanted.values)


def test_a_run_is_not_resumed_on_other_data(done):
    data = Path(done.data["source"])
    before, model = data.read_text(), (done.folder / "rerank/model/model.safetensors").read_bytes()
    how = {"network": "interaction", "settings": TRAINING, "out": done.folder / "rerank"}
    try:
        data.write_text("".join(before.splitlines(keepends=True)[:-9]))
        with pytest.raises(ArtefactError, match="changed since it began: .* train rows, not"):
            rerank(done.folder / "run", resume=True, **how)
    finally:
        data.write_text(before)
    assert (done.folder / "rerank/model/model.safetensors").read_bytes() == model


def test_a_finished_run_is_refused_and_resumes_to_the_same(done, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(done.folder / "home"))
    how = {"network": "interaction", "out": done.folder / "rerank"}
    settings = {"training": {"epochs": 8, "lr": 3e-3, "batch_size": 32}}
    with pytest.raises(RunExistsError, match="already contains a run"):
        rerank(done.folder / "run", settings=settings, **how)
    again = rerank(done.folder / "run", settings=settings, resume=True, **how)
    for name, tensor in done.found.model.network.state_dict().items():
        assert torch.equal(again.model.network.state_dict()[name], tensor), name


def test_a_run_that_is_interrupted_goes_on_by_the_command_that_is_printed(
    done, tmp_path, monkeypatch, capsys
):
    def stopped(*_):
        raise KeyboardInterrupt

    file = Path(__file__).with_name("words.py")
    asked = ["rerank", str(done.folder / "run"), "-e", f"left={file}:Left"]
    asked += [
        "-e",
        f"right={file}:Right",
        "--set",
        "training.epochs=2",
        "--out",
        str(tmp_path / "r"),
    ]
    monkeypatch.setenv("FUSEMIX_HOME", str(done.folder / "home"))
    with monkeypatch.context() as patch:
        patch.setattr("fusemix_core.jobs.rerank.best_of", stopped)
        patch.setattr("sys.argv", ["fusemix", *asked])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 130
    line = re.search("Go on with: fusemix (.*)", capsys.readouterr().err).group(1)
    monkeypatch.setattr("sys.argv", ["fusemix", *shlex.split(line)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and (tmp_path / "r/results.json").exists()


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"network": "crosses"}, UnknownNameError, "crosses"),
        ({"network": {"name": "auto", "options": {"wings": 2}}}, ConfigError, "wings"),
        ({"views": {"left": "grid"}}, ConfigError, "no view 'grid'"),
        ({"views": {"image": "grid"}}, UnknownNameError, "image"),
        ({"between": ["left"]}, ConfigError, "two modalities"),
        ({"settings": {"top_k": 1}}, ConfigError, "top_k is 1"),
        ({"settings": {"negatives": "soft"}}, ConfigError, "soft"),
        ({"data": {"validation_fraction": 0.0}}, ConfigError, "validation_fraction"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(done, tmp_path, more, error, message):
    with pytest.raises(error, match=message):
        rerank(done.folder / "run", out=tmp_path / "r", **more)
    assert not (tmp_path / "r").exists()
