"""`fusemix clean` finds captions of the sample that were exchanged, by fits without their rows."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from fusemix_starter import sample_path

from fusemix_core.config import DataConfig
from fusemix_core.evaluation.bootstrap import interval
from fusemix_core.jobs.clean import clean
from fusemix_core.metrics.ranks import roc_auc
from fusemix_core.runs.models import load_model


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory):
    """(a table of the sample with 5% of the texts exchanged, bool `[n]` which rows those are)."""
    with open(sample_path(), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    at = np.random.default_rng(0).choice(len(rows), round(0.05 * len(rows)), replace=False)
    texts = [rows[i]["text"] for i in np.roll(at, 1)]
    for i, text in zip(at, texts, strict=True):
        rows[i]["text"] = text
    for row in rows:
        row["image"] = str(sample_path().parent / row["image"])
    path = tmp_path_factory.mktemp("exchanged") / "pairs.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path, np.isin(np.arange(len(rows)), at)


@pytest.mark.long  # short: tests/jobs/test_clean.py, on toys
def test_exchanged_texts_are_found_among_rows_that_the_model_was_trained_on(exchanged):
    path, wrong = exchanged
    config = DataConfig((str(path),), split_column="split", allow_outside=True)
    found = clean(load_model("starter:figures", "cpu"), config)
    assert found.judged_by == "kcca" and len(found.dataset) == len(wrong)
    fit = found.fits["image", "text"]
    wrong = wrong[[found.dataset.origin[i][1] - 1 for i in range(len(wrong))]]
    doubt = -fit.lead.numpy()
    random = np.random.default_rng(0)
    drawn = [random.integers(0, len(wrong), len(wrong)) for _ in range(200)]
    near = interval(np.array([roc_auc(doubt[d], wrong[d]) for d in drawn]))
    auc = roc_auc(doubt, wrong)
    print(f"AUC {auc:.3f} {near}")
    assert auc >= 0.95 and near is not None and near[0] > 0.9
    listed = {one.row for one in found.suspects if one.kind == "mispaired"}
    rows = {found.dataset.origin[i][1] for i in np.flatnonzero(wrong).tolist()}
    assert len(listed) < 0.1 * len(wrong) and len(listed & rows) > 0.6 * len(rows)
    assert found.shares["image-text"] == pytest.approx(0.05, abs=0.02)
