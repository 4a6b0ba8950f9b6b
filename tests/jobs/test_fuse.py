"""`fuse`, `predict` and `explain`: from a table to a predictor, and back to a table."""

import csv
import json

import numpy as np
import pytest
import torch
from toys import ToyText

from fusemix_core import fuse, load
from fusemix_core.errors import ArtefactError, ConfigError, DataError, RunExistsError
from fusemix_core.jobs.explain import explain_rows, explained_run
from fusemix_core.jobs.predict import Predictions, predict, predicted_data

ENCODERS = {"text": ToyText, "size": "columns"}
WORDS = ["river", "engine", "cloud"]


def rows(count=150, seed=0, gaps=0.0):
    """Rows whose class is told by a word and a number together, column → values."""
    draw = np.random.default_rng(seed)
    word, number = draw.integers(0, 3, count), draw.normal(size=count)
    kind = np.digitize(word + 0.8 * number, [0.5, 1.5])
    flip = draw.random(count) < 0.05
    kind = np.where(flip, draw.integers(0, 3, count), kind)
    texts = [f"{WORDS[w]} {draw.integers(100)}" for w in word]
    table = {
        "text": texts,
        "length": [f"{v:.4f}" for v in number],
        "price": [f"{3 * w + v:.3f}" for w, v in zip(word, number, strict=True)],
        "kind": [f"k{k}" for k in kind],
    }
    for name in ("text", "length"):
        table[name] = [None if draw.random() < gaps else v for v in table[name]]
    return table


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuse")
    data = {"source": rows(gaps=0.1), "columns": {"size": "length"}}
    return fuse(ENCODERS, data, target="kind", out=folder / "run", folds=3)


def test_a_run_is_not_resumed_on_other_data(tmp_path):
    table, data = rows(60), tmp_path / "rows.csv"
    lines = [",".join(row) + "\n" for row in (table, *zip(*table.values(), strict=True))]
    data.write_text("".join(lines))
    columns = {"source": str(data), "columns": {"size": "length"}}
    how = {"target": "price", "fuser": "stack", "out": tmp_path / "run"}
    fuse(ENCODERS, columns, **how)
    model = (tmp_path / "run/model/model.safetensors").read_bytes()
    data.write_text("".join([*lines[:-1], lines[-1].replace(table["price"][-1], "17.5")]))
    with pytest.raises(ArtefactError, match="changed since it began: .* not the same"):
        fuse(ENCODERS, columns, resume=True, **how)
    assert (tmp_path / "run/model/model.safetensors").read_bytes() == model
    data.write_text("".join(lines))
    fuse(ENCODERS, columns, resume=True, **how)


def test_every_row_is_measured_once_and_baselines_stand_beside(done):
    found = done.results
    assert found["task"]["name"] == "classify" and "3 classes" in found["task"]["reason"]
    assert {
        "no modality",
        "text",
        "size",
        "mean of modalities",
        "boosting",
        "stack",
        "block",
    } <= set(found["candidates"])
    measured = np.sort(np.concatenate([part.rows for part in done.study.parts]))
    assert (measured == np.arange(sum(found["splits"].values()))).all()
    assert found["fuser"] in done.study.fusers and found["single"] in ("text", "size")
    low, high = found["candidates"]["block"]["interval"]
    assert low < found["candidates"]["block"]["metrics"]["accuracy"] < high


def test_a_metric_that_the_test_rows_leave_undefined_is_none(tmp_path):
    table = rows(60)
    table["split"] = ["test" if i % 4 == 0 else "train" for i in range(60)]
    table["grade"] = ["3" if i % 4 == 0 else str(i % 7 / 2) for i in range(60)]  # no variance in r2
    data = {"source": table, "columns": {"size": "length"}, "split_column": "split"}
    done = fuse(ENCODERS, data, target="grade", out=tmp_path / "run")
    assert done.results["verdict"].startswith("r2 is undefined on the test rows")
    assert done.results["gain"]["value"] is None and done.results["by_missing"][0][1] is None
    text = done.folder.results.read_text()
    assert json.loads(text, parse_constant=pytest.fail) == done.results
    assert explained_run(done.folder.path)["shares"] == done.results["shares"]
    assert "nan" not in done.folder.report.read_text().lower().split("</style>")[1]


def test_shares_add_up_to_what_all_gain_over_none(done):
    shares = done.results["shares"]
    every = done.results["combinations"]["text + size"]
    nothing = done.results["candidates"]["no modality"]["metrics"]["accuracy"]
    assert sum(one["value"] for one in shares.values()) == pytest.approx(every - nothing)
    rates = dict(map(tuple, done.results["by_missing"]))
    assert rates[0.0] == pytest.approx(every) and rates[0.9] <= rates[0.0]


def test_the_folder_has_a_predictor_a_report_and_doubtful_rows(done):
    folder = done.folder
    page = folder.report.read_text()
    assert done.results["verdict"].split(":")[0] in page and "Modalities" in page
    assert json.loads(folder.results.read_text())["fuser"] == done.results["fuser"]
    lines = [json.loads(one) for one in (folder.path / "doubtful.jsonl").read_text().splitlines()]
    assert len(lines) == done.results["doubtful"]
    assert all(one["target"] != one["predicted"] and one["row"] >= 1 for one in lines)


def test_a_loaded_predictor_predicts_the_same_of_items_and_of_a_file(done, tmp_path):
    new = rows(40, seed=3, gaps=0.2)
    predictor = load(done.folder.path, encoders={"text": ToyText.spec.name})
    items = {"text": new["text"], "size": [_item(v) for v in new["length"]]}
    rows_with_some = [i for i in range(40) if new["text"][i] or new["length"][i]]
    items = {m: [values[i] for i in rows_with_some] for m, values in items.items()}
    want = done.predictor.predict(items)
    assert predictor.predict(items) == want
    assert predictor.predict_proba(items).sum(axis=1) == pytest.approx(np.ones(len(want)))
    with open(tmp_path / "new.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "length"])
        writer.writerows(
            [a or "", b or ""] for a, b in zip(new["text"], new["length"], strict=True)
        )
    config = predicted_data(
        {"source": (str(tmp_path / "new.csv"),)}, {"data": {"columns": {"size": "length"}}}
    )
    found = predict(predictor, config)
    assert [row - 1 for _, row in found.origin] == rows_with_some
    assert list(found.columns["prediction"]) == want
    assert set(found.columns["modalities"]) <= {"text", "size", "text + size"}
    found.write(tmp_path / "out.csv")
    written = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [one["prediction"] for one in written] == want
    explained = explain_rows(predictor, config)
    lacks = [i for i, used in enumerate(explained.columns["modalities"]) if used == "text"]
    assert all(explained.columns["without_text"][i] is None for i in lacks)
    assert any(a != b for a, b in zip(want, explained.columns["without_size"], strict=True) if b)


def _item(value):
    return None if value is None else {"length": value}


def test_a_modality_without_a_column_is_missing(done, tmp_path):
    (tmp_path / "texts.csv").write_text("text\nriver 3\ncloud 5\n")
    config = predicted_data({"source": (str(tmp_path / "texts.csv"),)}, {})
    found = predict(done.predictor, config)
    assert list(found.columns["modalities"]) == ["text", "text"]
    expected = done.results["combinations"]["text"]
    assert found.columns["expected_accuracy"] == [pytest.approx(expected)] * 2


def test_a_number_is_predicted_with_an_interval(tmp_path):
    data = {"source": rows(120), "columns": {"size": "length"}}
    done = fuse(ENCODERS, data, target="price", out=tmp_path / "run", fuser="stack")
    assert done.results["task"]["name"] == "regress" and done.results["fuser"] == "stack"
    columns = done.predictor.columns(done.predictor.scores({"text": ["river 1"]}))
    assert columns["low"][0] < columns["prediction"][0] < columns["high"][0]
    assert done.results["candidates"]["stack"]["metrics"]["r2"] > 0.5
    (column,) = done.results["columns"]
    assert (column["modality"], column["column"]) == ("size", "length") and column["value"] > 0
    assert "cells of a column are exchanged" in done.folder.report.read_text()
    again = fuse(ENCODERS, data, target="price", out=tmp_path / "two", fuser="stack")
    assert _comparable(again.results) == _comparable(done.results)


def _comparable(results):
    table = {k: {**v, "seconds": 0} for k, v in results["candidates"].items()}
    return {**results, "candidates": table}


def test_what_can_be_mended_is_said(tmp_path):
    table = rows(60)
    with pytest.raises(ConfigError, match="What is to be predicted"):
        fuse(ENCODERS, table, out=tmp_path / "a")
    with pytest.raises(DataError, match="nothing to predict"):
        fuse(ENCODERS, {**table, "same": ["x"] * 60}, target="same", out=tmp_path / "b")
    with pytest.raises(DataError, match=r"no column 'prize' \(--target prize\)") as caught:
        fuse(ENCODERS, table, target="prize", out=tmp_path / "e")
    assert "Did you mean --target price?" in caught.value.hint
    with pytest.raises(DataError, match=r"no column 'dead' \(--event dead\)"):
        fuse(ENCODERS, table, time="price", event="dead", out=tmp_path / "f")
    with pytest.raises(ConfigError, match="folds is 1"):
        fuse(ENCODERS, table, target="kind", folds=1, out=tmp_path / "c")
    with pytest.raises(ConfigError, match="a time and an event"):
        fuse(ENCODERS, table, time="length", out=tmp_path / "d")
    assert not any(tmp_path.iterdir())


def test_a_run_is_not_overwritten_and_another_model_is_no_predictor(done, tmp_path):
    with pytest.raises(RunExistsError):
        fuse(ENCODERS, rows(60), target="kind", out=done.folder.path)
    with pytest.raises(ArtefactError, match="has no results"):
        explained_run(tmp_path)
    assert explained_run(done.folder.path)["verdict"] == done.results["verdict"]


def test_rows_without_a_target_are_left_out_and_counted(tmp_path):
    table = rows(90)
    table["kind"] = [None if i % 9 == 0 else v for i, v in enumerate(table["kind"])]
    data = {"source": table, "columns": {"size": "length"}}
    done = fuse(ENCODERS, data, target="kind", out=tmp_path / "run", fuser="stack", folds=2)
    assert any("10 of 90 rows have no target" in note for note in done.results["warnings"])
    assert sum(done.results["splits"].values()) == 80


def test_groups_are_never_on_two_sides(done):
    """Rows of one file of a medium, or of one group, are tested by a fit without any of them."""
    for one in done.study.folds:
        groups = [set(part.groups.tolist()) for part in (one.train, one.validation, one.test)]
        assert not (groups[0] & groups[2] or groups[1] & groups[2] or groups[0] & groups[1])


def test_a_score_of_latents_needs_a_modality(done):
    predictor = done.predictor
    latents = {m: torch.zeros(2, e.dim) for m, e in predictor.encoders.items()}
    present = torch.tensor([[True, False], [False, False]])
    with pytest.raises(DataError, match="Row 2 has none"):
        predictor.score(latents, present)


def test_a_private_run_writes_nothing_of_single_rows(tmp_path):
    table = rows(80)
    table["kind"][:20] = ["k0"] * 20  # so that rows are doubtful
    table["length"] = [f"{v}7091" for v in table["length"]]  # too long to occur by chance
    data = {"source": table, "columns": {"size": "length"}}
    done = fuse(ENCODERS, data, target="kind", out=tmp_path / "run", fuser="stack", private=True)
    assert not (done.folder.path / "doubtful.jsonl").exists()
    written = b"".join(p.read_bytes() for p in done.folder.path.rglob("*") if p.is_file())
    assert b"Private: this run" in written
    assert not any(text.encode() in written for text in table["text"] + table["length"])


def test_pairs_that_belong_together_are_told_from_others(tmp_path):
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(400, 6)).astype(np.float32)
    one, other = (
        shared @ draw.normal(size=(6, d)).astype(np.float32) + 0.2 * draw.normal(size=(400, d))
        for d in (10, 8)
    )
    done = fuse({"image": one, "text": other}, task="match", out=tmp_path / "run")
    found = done.results["candidates"]
    assert done.results["fuser"] == "products" and done.results["splits"]["test"] == 80
    assert found["products"]["metrics"]["auc"] > 0.85 > 0.65 > found["block"]["metrics"]["auc"]
    targets = done.study.folds[0].train.targets.values
    assert targets.bincount().tolist() == [320, 320]
    with pytest.raises(ConfigError, match="not by folds"):
        fuse({"image": one, "text": other}, task="match", folds=3, out=tmp_path / "two")


def test_a_prediction_that_is_undefined_is_an_empty_cell(tmp_path):
    """Such as a median survival time beyond the last one seen."""
    columns = {"prediction": np.array([1.5, np.nan]), "modalities": ["a", "b"]}
    Predictions([("d.csv", 1), ("d.csv", 2)], columns).write(tmp_path / "p.csv")
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines == ["row,prediction,modalities", "1,1.5,a", "2,,b"]
