"""Runs beside each other, by the ranks that they wrote."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from pairs import write_world
from toys import ToyText
from typer.testing import CliRunner

from fusemix_core import fuse
from fusemix_core.cli.app import app
from fusemix_core.errors import ConfigError
from fusemix_core.jobs.compare import compare

FILE = Path(__file__).parents[1] / "toys.py"
TOYS = ["-e", f"image={FILE}:ToyImage", "-e", f"text={FILE}:ToyText"]


def call(*args, code=0):
    done = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Runs `a` and `b` of the same pairs by two recipes, and `other` of another seed."""
    folder = tmp_path_factory.mktemp("compare")
    world = write_world(folder / "world", 160)
    lines = world.read_text().replace("number 3", "<b>number 3</b>")
    world.write_text(lines)
    how = ["-d", world, *TOYS, "--device", "cpu", "--baseline", "none"]
    for name, more in {"a": ["cca"], "b": ["csa"], "other": ["cca", "--seed", 1]}.items():
        call("align", *how, "--recipe", *more, "--out", folder / name)
    return folder


def ranks_of(run):
    with open(run / "test_ranks.csv", newline="") as file:
        return {(r["query"], r["item"]): int(r["rank"]) for r in csv.DictReader(file)}


def test_recalls_and_leads_are_those_of_the_ranks(place):
    found = compare([place / "a", place / "b"])
    a, b = ranks_of(place / "a"), ranks_of(place / "b")
    assert len(found.keys) == len(a) == len(b)
    (lead,) = found.leads
    for k in (1, 5, 10):
        each = []
        for query in ("image", "text"):
            own = [key for key in a if key[0] == query]
            each.append(
                100 * (np.mean([a[q] <= k for q in own]) - np.mean([b[q] <= k for q in own]))
            )
        ahead, near = lead.at[k]
        assert ahead == pytest.approx(np.mean(each))
        assert near[0] - 1e-9 <= ahead <= near[1] + 1e-9
        mine, theirs = (found.recalls[name]["mean"][k] for name in ("a", "b"))
        assert mine - theirs == pytest.approx(ahead)


def test_a_copy_of_a_run_is_exactly_as_good(place, tmp_path):
    shutil.copytree(place / "a", tmp_path / "copy")
    (lead,) = compare([place / "a", tmp_path / "copy"]).leads
    assert all(at == (0, [0, 0]) for at in lead.at.values())


def test_a_run_that_was_copied_with_its_data_is_compared_by_paths_from_its_folder(place, tmp_path):
    shutil.copytree(place, tmp_path / "moved")
    config = tmp_path / "moved/b/config.toml"
    table = tmp_path / "moved/b/test_ranks.csv"
    text = config.read_text()
    base = re.search(r'^base = "(.*)"$', text, re.MULTILINE)[1]
    config.write_text(text.replace(f'base = "{base}"', f'base = "{tmp_path / "moved"}"'))
    table.write_text(table.read_text().replace(str(place), str(tmp_path / "moved")))
    shutil.copytree(place / "a", tmp_path / "a2")
    first = tmp_path / "a2/config.toml"
    first.write_text(first.read_text().replace(f'base = "{base}"', f'base = "{place}"'))
    assert len(compare([tmp_path / "a2", tmp_path / "moved/b"]).keys) == len(ranks_of(place / "a"))


def test_runs_of_other_rows_are_refused_with_the_remedy(place):
    with pytest.raises(ConfigError, match="not tested on the same items") as error:
        compare([place / "a", place / "other"])
    assert "--seed" in error.value.hint
    assert re.search(
        r"queries of a aren't in other, and [\d,]+ of other aren't in a\.", str(error.value)
    )


def test_runs_of_other_texts_are_refused(place, tmp_path):
    shutil.copytree(place / "a", tmp_path / "c")
    table = tmp_path / "c/test_ranks.csv"
    table.write_text(table.read_text().replace("text,image,a ", "text,image,one "))
    with pytest.raises(ConfigError, match="not tested on the same texts"):
        compare([place / "a", tmp_path / "c"])


def test_what_is_no_run_one_run_and_the_same_run_are_refused(place, tmp_path):
    assert "test_ranks.csv" in call("compare", place / "a", tmp_path, code=2).stderr
    assert "Two runs" in call("compare", place / "a", code=2).stderr
    assert "twice" in call("compare", place / "a", place / "a", code=2).stderr


def test_each_wins_where_its_rank_is_far_ahead_and_the_page_shows_it(place, tmp_path):
    page = tmp_path / "c.html"
    printed = json.loads(call("compare", place / "a", place / "b", "--html", page, "--json").stdout)
    ranks = {name: ranks_of(place / name) for name in ("a", "b")}
    found = compare([place / "a", place / "b"])
    for run, other in (found.runs, found.runs[::-1]):
        won = printed["wins"][run.name]
        assert won and len(won) <= 8
        for key in map(tuple, won):
            item = (key[0], run.answers[key].item)
            assert ranks[run.name][item] < ranks[other.name][item]
            assert ranks[run.name][item] <= 10
    text = page.read_text()
    assert "Where a wins" in text and "Where b wins" in text and "data:image/jpeg" in text
    assert "<script" not in text and "<b>number" not in text


def test_three_runs_have_three_leads(place, tmp_path):
    shutil.copytree(place / "b", tmp_path / "b")
    found = compare([place / "a", place / "b", tmp_path / "b"])
    assert len(found.leads) == 3
    assert len({run.name for run in found.runs}) == 3  # two are called b: by their folders
    assert "Who is ahead" in call("compare", place / "a", place / "b", tmp_path / "b").stdout


# -- predictors ------------------------------------------------------------------------------------


def predicted_rows(count=150):
    """Rows whose class depends on a text and a number, column → values."""
    draw = np.random.default_rng(0)
    word, number = draw.integers(0, 3, count), draw.normal(size=count)
    kind = np.digitize(word + 0.8 * number, [0.5, 1.5])
    return {
        "text": [f"{('river', 'engine', 'cloud')[w]} {i}" for i, w in enumerate(word)],
        "length": [f"{v:.4f}" for v in number],
        "kind": [f"k{k}" for k in kind],
        "price": [f"{3 * w + v:.3f}" for w, v in zip(word, number, strict=True)],
    }


@pytest.fixture(scope="module")
def predictors(tmp_path_factory):
    """Runs `both` and `one` of the same folds, `split` of one split, and `price` of a number."""
    folder = tmp_path_factory.mktemp("predictors")
    data = {"source": predicted_rows(), "columns": {"size": "length"}}
    both, fast = {"text": ToyText, "size": "columns"}, {"fuser": "block", "device": "cpu"}
    for name, encoders, more in (
        ("both", both, {"target": "kind", "folds": 3}),
        ("one", {"text": ToyText}, {"target": "kind", "folds": 3}),
        ("split", both, {"target": "kind"}),
        ("price", both, {"target": "price"}),
    ):
        own = data if len(encoders) > 1 else {"source": data["source"]}
        fuse(encoders, own, out=folder / name, **fast, **more)
    return folder


@pytest.mark.slow
def test_predictors_are_compared_on_the_same_rows(predictors):
    found = compare([predictors / "both", predictors / "one"])
    both, one = (
        json.loads((predictors / name / "results.json").read_text()) for name in ("both", "one")
    )
    values = [r["candidates"][r["fuser"]]["metrics"]["accuracy"] for r in (both, one)]
    told = found.as_dict()
    assert told["metric"] == "accuracy" and told["rows"] == 150
    assert [told["runs"][n]["value"] for n in ("both", "one")] == pytest.approx(values)
    assert told["runs"]["both"]["interval"] == both["candidates"][both["fuser"]]["interval"]
    (ahead,) = told["ahead"]
    assert (ahead["first"], ahead["second"]) == ("both", "one")
    assert ahead["value"] == pytest.approx(values[0] - values[1])
    assert 0 < ahead["interval"][0] <= ahead["value"] <= ahead["interval"][1]
    back = compare([predictors / "one", predictors / "both"]).as_dict()["ahead"][0]
    assert back["interval"] == pytest.approx([-v for v in ahead["interval"][::-1]])
    shown = call("compare", predictors / "both", predictors / "one").stdout
    assert "both is better" in shown and "accuracy of 150 test rows" in " ".join(shown.split())


@pytest.mark.slow
def test_a_copy_of_a_predictor_is_exactly_as_good(predictors, tmp_path):
    shutil.copytree(predictors / "both", tmp_path / "both")
    found = compare([predictors / "both", tmp_path / "both"])
    (ahead,) = found.as_dict()["ahead"]
    assert ahead["value"] == 0 and ahead["interval"] == [0, 0]
    page = found.write_page(tmp_path / "page.html").read_text()
    assert "no difference shown" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("both", "split"), "not tested on the same rows"),
        (("split", "price"), "don't predict the same: classify of kind.* and regress of price"),
        (("both", "both"), "named twice"),
    ],
)
def test_predictors_without_a_common_measure_are_refused(predictors, names, reason):
    with pytest.raises(ConfigError, match=reason):
        compare([predictors / name for name in names])


@pytest.mark.slow
def test_a_predictor_and_a_run_of_align_have_no_measure_in_common(predictors, place):
    with pytest.raises(ConfigError, match="no measure in common") as error:
        compare([place / "a", predictors / "both"])
    assert "with each other" in error.value.hint


@pytest.mark.slow
def test_a_predictor_whose_rows_are_not_kept_says_what_to_do(predictors, tmp_path):
    shutil.copytree(predictors / "one", tmp_path / "older")
    (tmp_path / "older/test_scores.safetensors").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="can't be read"):
        compare([predictors / "both", tmp_path / "older"])
    (tmp_path / "older/test_scores.safetensors").unlink()
    with pytest.raises(ConfigError, match="has no test_scores") as error:
        compare([predictors / "both", tmp_path / "older"])
    assert "again" in error.value.hint
