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


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """A folder with the test split of the sample: whole modules that the model has not seen."""
    folder = tmp_path_factory.mktemp("figures")
    rows = []
    with open(sample_path(), encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == "test":
                name = row["image"].replace("/", "-")
                shutil.copy(sample_path().parent / row["image"], folder / name)
                rows.append((name, row["text"]))
    with open(folder / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "text"), *rows])
    return folder


def test_recall_on_held_out_modules_is_that_of_the_fit(held_out, shared_home, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", shared_home)
    # Compiling the encoders takes longer than they do for so few items.
    monkeypatch.setattr(models, "Encoding", partial(models.Encoding, backend="eager"))
    model = load(NAME, device="cpu")
    found = evaluate(model, str(held_out / "pairs.csv"), split="all")
    fitted = model.metrics["retrieval"]
    assert found["retrieval"]["mean_r1"] == pytest.approx(fitted["mean_r1"], abs=0.4)
    assert found["retrieval"]["mean_recall"] == pytest.approx(fitted["mean_recall"], abs=0.4)
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
