"""The model `starter:figures`: found by its name, and as good as when it was fitted."""

from __future__ import annotations

import csv
import shutil
from functools import partial

import pytest
from fusemix_starter import sample_path
from typer.testing import CliRunner

from fusemix_core import load
from fusemix_core.cli.app import app
from fusemix_core.errors import ArtefactError
from fusemix_core.jobs.evaluate import evaluate
from fusemix_core.packaged import packaged_folder
from fusemix_core.registry import registry
from fusemix_core.runs import models

NAME = "starter:figures"


SHORT = {"mean_r1": 78.3, "mean_recall": 91.3}
"""Of every twelfth figure of the test split. One query of 46 is 2.2."""


@pytest.fixture(scope="module", params=[12, pytest.param(1, marks=pytest.mark.long)])
def held_out(request, tmp_path_factory):
    """(A folder with the test split of the sample, or one of so many of its figures: whole modules
    that the model has not seen; whether it is whole)."""
    folder = tmp_path_factory.mktemp("figures")
    rows = []
    with open(sample_path(), encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == "test":
                rows.append((row["image"].replace("/", "-"), row["text"], row["image"]))
    rows = rows[:: request.param]
    for name, _, image in rows:
        shutil.copy(sample_path().parent / image, folder / name)
    with open(folder / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "text"), *(row[:2] for row in rows)])
    return folder, request.param == 1


@pytest.mark.slow
def test_recall_on_held_out_modules_is_that_of_the_fit(held_out, shared_home, monkeypatch):
    held_out, whole = held_out
    monkeypatch.setenv("FUSEMIX_HOME", shared_home)
    # Compiling the encoders takes longer than they do for so few items.
    monkeypatch.setattr(models, "Encoding", partial(models.Encoding, backend="eager"))
    model = load(NAME, device="cpu")
    found = evaluate(model, str(held_out / "pairs.csv"), split="all")
    fitted, near = (model.metrics["retrieval"], 0.4) if whole else (SHORT, 2.3)
    assert found["retrieval"]["mean_r1"] == pytest.approx(fitted["mean_r1"], abs=near)
    assert found["retrieval"]["mean_recall"] == pytest.approx(fitted["mean_recall"], abs=near)
    assert found["trained_on"]["pairs"] == 0

    search = ["search", NAME, "a map of the world", "--data", str(held_out), "-k", "3"]
    done = CliRunner().invoke(app, search)  # a folder of images, and no pairs
    assert done.exit_code == 0, done.output
    assert "world-history" in done.stdout.splitlines()[0]


def test_it_is_small_and_says_whose_data_it_is_of():
    folder = packaged_folder(registry.all_models()[NAME].path)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5e6
    card = (folder / "README.md").read_text()
    assert "OpenStax" in card and "CC BY 4.0" in card and f"from_pretrained('{NAME}')" in card
    assert registry.all_models()[NAME].licence == "CC-BY-4.0"


def test_a_name_that_no_plugin_brings_is_refused_with_those_there_are():
    with pytest.raises(ArtefactError) as refused:
        load("starter:figure")
    assert NAME in refused.value.hint
    with pytest.raises(ArtefactError, match="missing from its package"):
        packaged_folder("fusemix_starter/models/none")
