"""Mispaired rows, leaks and near-duplicates are found, with a table and a page of them."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pairs import COLOURS, THINGS
from PIL import Image
from typer.testing import CliRunner

from fusemix_core.cli.app import app
from fusemix_core.config import DataConfig
from fusemix_core.errors import DataError
from fusemix_core.jobs.clean import clean
from fusemix_core.metrics.ranks import roc_auc
from fusemix_core.runs.config import find_recipe
from fusemix_core.runs.models import load_model
from fusemix_core.runs.refit import refitted_by

FILE = Path(__file__).parents[1] / "toys.py"
ENCODERS = {"image": f"{FILE}:ToyImage", "text": f"{FILE}:ToyText"}
TOYS = [x for m, name in ENCODERS.items() for x in ("-e", f"{m}={name}")]
BAD = range(100, 106)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """160 patches and what they are called; six texts are exchanged, and one image is nearly the
    same as another of another split."""
    folder = tmp_path_factory.mktemp("clean")
    random, rows = np.random.default_rng(0), []
    for i in range(160):
        name, thing = list(COLOURS)[i % 8], THINGS[i // 8 % 8]
        base = np.array(COLOURS[name], float) + 6 * THINGS.index(thing)
        pixels = base + random.normal(0, 3 + 6 * THINGS.index(thing), (12, 12, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{i}.png")
        split = "test" if i % 10 == 9 else "validation" if i % 10 == 8 else "train"
        rows.append({"image": f"{i}.png", "text": f"a {name} {thing} {i}", "split": split})
    texts = [rows[i]["text"] for i in BAD]
    for i, text in zip(BAD, [*texts[3:], *texts[:3]], strict=True):
        rows[i]["text"] = text
    pixels = np.asarray(Image.open(folder / "9.png")).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(folder / "40.png")
    rows[40]["text"] = "<script>alert(1)</script> a copy"
    with open(folder / "pairs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "pairs.csv"


def call(*args):
    done = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def run(world):
    """The folder of a run on these pairs."""
    out = world.parent / "run"
    call("align", *TOYS, "-d", world, "--split-column", "split", "--recipe", "kcca", "--out", out,
         "--device", "cpu")  # fmt: skip
    return out


@pytest.fixture(scope="module")
def model(run):
    return load_model(run, "cpu", ENCODERS)


@pytest.fixture(scope="module")
def found(world, model):
    config = DataConfig((str(world),), split_column="split")
    return clean(model, config, recipe=find_recipe("kcca"), own=True)


def lead_of(found):
    fit = found.fits["image", "text"]
    order = [found.dataset.origin[i][1] for i in range(len(found.dataset))]
    lead = np.zeros(len(order))
    lead[np.array(order) - 1] = fit.lead.numpy()
    return lead


def test_rows_that_were_trained_on_are_judged_by_fits_without_them(found, model, world):
    wrong = np.isin(np.arange(160), BAD)
    auc = roc_auc(-lead_of(found), wrong)
    memorised = clean(model, DataConfig((str(world),)), own=True, folds=0)
    assert found.judged_by == "kcca" and memorised.judged_by == "model"
    assert auc > 0.9 and auc > roc_auc(-lead_of(memorised), wrong)
    assert any("--folds 0" in w for w in memorised.notices["warnings"])


def test_the_copy_in_another_split_is_a_leak_with_a_reason(found):
    leaks = [
        one for one in found.suspects if one.kind == "leak" and {one.row, one.other_row} == {10, 41}
    ]
    assert len(leaks) == 1 and leaks[0].row == 10  # the one that is held out comes first
    assert "This one is in test, the other in train." in leaks[0].reason


def test_rows_of_no_run_are_judged_by_the_model_if_it_never_saw_them(world, model, tmp_path):
    new = tmp_path / "new.csv"
    rows = []
    for i in range(60):
        Image.new("RGB", (12, 12), (i * 4, 255 - i * 4, 7)).save(tmp_path / f"n{i}.png")
        rows.append(f"n{i}.png,never seen {i}")
    new.write_text("image,text\n" + "\n".join(rows) + "\n")
    found = clean(model, DataConfig((str(new),)))
    assert found.judged_by == "model" and "leak" not in {s.kind for s in found.suspects}


def test_too_few_rows_are_judged_by_the_model_and_that_is_said(world, model, tmp_path):
    few = tmp_path / "few.csv"
    lines = world.read_text().splitlines()[:21]
    for name in [line.split(",")[0] for line in lines[1:]]:
        shutil.copy(world.parent / name, tmp_path)
    few.write_text("\n".join(lines) + "\n")
    found = clean(model, DataConfig((str(few),)))
    assert found.judged_by == "model"
    assert any("fewer than 50 rows" in w for w in found.notices["warnings"])


def test_rows_that_all_hang_together_say_what_to_do(world, model):
    config = DataConfig((str(world),), group_by="split")
    with pytest.raises(DataError, match="too few") as error:
        clean(model, config)
    assert "--folds 0" in error.value.hint


def test_a_closed_form_is_refitted_as_it_is_and_kernel_cca_stands_in_for_others():
    assert refitted_by(find_recipe("cca")).name == "cca"
    for name in ("auto", "fusemix"):
        recipe = refitted_by(find_recipe(name))
        assert recipe.name == "kcca" and recipe.aligner.options["landmarks"] == 1_024
    assert refitted_by(None).name == "kcca"


def test_the_command_writes_a_table_and_a_page_that_needs_nothing_else(run, world, tmp_path):
    printed = json.loads(call("clean", run, "--out", tmp_path / "s", "--json", *TOYS))
    with open(tmp_path / "s/suspect.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(printed["suspects"]) == sum(printed["counts"].values())
    assert printed["judged_by"] == "kcca" and 0 <= printed["mispaired_share"]["image-text"] <= 0.3
    assert all(row["reason"] for row in rows)
    with open(world, newline="") as file:
        data = list(csv.DictReader(file))
    for row in rows:
        own = data[int(row["row"]) - 1]
        assert {name: row[name] for name in own} == own
    page = (tmp_path / "s/suspect.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "") and "data:image/jpeg" in page
