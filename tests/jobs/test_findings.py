"""Zero-shot with any number of classes an item, from tables and in runs."""

import csv
import json

import pytest
from pairs import COLOURS, THINGS, write_world
from toys import ToyImage, ToyText

from fusemix_core import align
from fusemix_core.cli.evaluate import ZeroShotOptions
from fusemix_core.config import DataConfig
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.jobs.evaluate import classify, measure_classes

CLASSES = [*list(COLOURS)[:4], *THINGS]
HOW = {"separator": ";", "label_column": "findings", "split": "all"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Pairs with findings (a colour, a thing or nothing) and the patient of each image."""
    world = write_world(tmp_path_factory.mktemp("findings"))
    with open(world, newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        _, colour, thing, *_ = row["text"].split()
        found = [c for c in (colour, thing) if c in CLASSES] if i % 5 else []
        row["findings"], row["patient"] = "; ".join(found), f"p{i // 3}"
    with open(world, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with open(world.with_suffix(".jsonl"), "w") as file:
        for row in rows:
            listed = [one for one in row["findings"].split("; ") if one]
            file.write(json.dumps({**row, "findings": listed}) + "\n")
    return world


@pytest.fixture(scope="module")
def fitted(world):
    """A run that measures the findings by a fact of its rows."""
    facts = {"findings": "findings:labels", "patient": "patient:class"}
    options = {"fact": "findings", "separator": ";", "group": "patient", "resamples": 20}
    return align(
        {"image": ToyImage, "text": ToyText},
        {"source": str(world), "facts": facts, "test_fraction": 0.4},
        out=world.parent / "r", recipe="kcca", device="cpu",
        evaluators=[{"name": "zero-shot", "options": options}],
    )  # fmt: skip


def test_a_run_measures_the_findings_of_its_rows_beside_baselines(fitted):
    assert "failed" not in fitted.results
    found = fitted.results["test"]["zero-shot"]
    assert set(found["scores"]) == {"similarity", "contrast"} and found["groups"] < found["items"]
    assert {"chance", "cca"} == set(found["baselines"]) and "red" in found["per_class"]
    html = fitted.folder.report.read_text(encoding="utf-8")
    assert "with any number of" in html and "Mean AUROC of" in html
    card = (fitted.folder.model / "README.md").read_text()
    assert "**zero-shot per\\_class**" in card and "**zero-shot scores**" in card


def test_cells_with_separators_and_lists_in_json_say_the_same(fitted, world):
    def config(path):
        return DataConfig(source=(str(path),), group_by="patient")

    found = classify(fitted.model, config(world), CLASSES, **HOW)
    assert found["items"] == 64 and found["groups"] == 22
    red = [i for i in range(64) if i % 8 == 0 and i % 5]
    assert found["per_class"]["red"]["positives"] == len(red)
    listed = classify(fitted.model, config(world.with_suffix(".jsonl")), CLASSES, **HOW)
    assert listed["per_class"] == found["per_class"]
    low, high = found["scores"]["contrast"]["auroc_interval"]
    assert low < found["scores"]["contrast"]["auroc"] < high


def test_prompts_that_say_so_and_that_deny_it_are_the_user_s(fitted, world):
    data = DataConfig(source=(str(world),))
    done = measure_classes(
        fitted.model, data, CLASSES, **HOW,
        positive=["a {} number 1"], negative=["nothing {}"], baselines=[str(fitted.folder.path)],
    )  # fmt: skip
    other = classify(fitted.model, data, CLASSES, **HOW)
    found = done.metrics["zero-shot"]
    assert found["scores"]["similarity"] == other["scores"]["similarity"]
    assert found["scores"]["contrast"] != other["scores"]["contrast"]
    assert found["baselines"]["r"]["ahead"] == 0
    with pytest.raises(DataError, match="none of the 2 classes"):
        classify(fitted.model, data, ["red", "green"], **HOW)


def test_the_options_of_the_command_line(tmp_path):
    classes = tmp_path / "classes.txt"
    classes.write_text("edema\neffusion\n")
    asked = ZeroShotOptions(classes, label_separator=";", negative=["no sign of {}"]).read()
    assert asked["separator"] == ";" and asked["negative"] == ["no sign of {}"]
    assert "positive" not in asked and asked["classes"] == ["edema", "effusion"]
    with pytest.raises(ConfigError, match="several classes"):
        ZeroShotOptions(classes, positive=["{}"]).read()
    with pytest.raises(ConfigError, match="once"):
        ZeroShotOptions(classes, label_separator=";", negative=["nothing"]).read()
