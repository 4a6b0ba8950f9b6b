"""Settings searched on validation, ties said in words, tables for a paper."""

import csv
from pathlib import Path

import pytest
import torch
from benchmarks_lines import line as line_of
from benchmarks_lines import lines_of
from pairs import write_world

from fusemix_core import bench
from fusemix_core.benchmark import run
from fusemix_core.benchmark.columns import column, columns, intervals_of
from fusemix_core.benchmark.config import bench_config
from fusemix_core.benchmark.export import HEADS, escaped, write_csv, write_latex
from fusemix_core.benchmark.page import write_report
from fusemix_core.benchmark.run import batch_of
from fusemix_core.benchmark.searching import search
from fusemix_core.benchmark.space import SearchBudget, candidates, search_space
from fusemix_core.benchmark.summary import Place, summarise
from fusemix_core.errors import ConfigError
from fusemix_core.registry import registry
from fusemix_core.runs.config import find_recipe

TOYS = Path(__file__).parents[1] / "toys.py"
ENCODERS = {"image": f"{TOYS}:ToyImage", "text": f"{TOYS}:ToyText"}
SMALL = {
    "label": "small",
    "recipe": "fusemix",
    "set": ["training.epochs=2", "adapter.blocks=1", "dim=8", "training.batch_size=32"],
    "search": {"training.lr": [1e-3, 1e-2], "adapter.dropout": [0.6, 0.0]},
}


def test_settings_are_chosen_on_validation_and_test_is_measured_once(tmp_path, monkeypatch):
    measured = []
    one = run.measured
    monkeypatch.setattr(run, "measured", lambda *a: measured.append(a) or one(*a))
    own = {"source": str(write_world(tmp_path / "w", count=80)), "encoders": ENCODERS}
    given = {"sets": {"world": own}, "methods": ["ridge", SMALL], "seeds": 1, "search": 3}
    closed, line = bench(given, tmp_path / "a")
    assert "searched" not in closed  # nothing to search in it
    found = line["searched"]
    assert found["tried"][0]["set"] == [] and len(found["tried"]) == 3 and found["of"] == 4
    scores = [trial["validation"] for trial in found["tried"]]
    assert found["chosen"] == found["tried"][scores.index(max(scores))]["set"]
    recall = line["validation"][line["scorer"]]
    assert max(scores) == pytest.approx(sum(recall[k] for k in ("r1", "r5", "r10")) / 3, abs=1e-2)
    assert len(measured) == 1
    [again] = bench(given | {"methods": [SMALL]}, tmp_path / "b")
    assert [t["set"] for t in again["searched"]["tried"]] == [t["set"] for t in found["tried"]]
    assert again["searched"]["chosen"] == found["chosen"] and again["test"] == line["test"]
    [plain] = bench({k: v for k, v in given.items() if k != "search"} | {"methods": [SMALL]},
                    tmp_path / "a")  # fmt: skip
    assert plain["key"] != line["key"]
    text = write_report([line], tmp_path).read_text()
    assert "settings searched on validation" in text and "3 of 4" in text


def test_every_recipe_declares_settings_that_it_has():
    for _, spec in registry.all_components("recipe"):
        own = find_recipe(spec.name)
        space = search_space(spec.name, own)
        assert set(space) >= set(spec.search), spec.name
        for setting in spec.search:  # the own settings are among those declared
            tried = [changed for _, changed in candidates(own, {setting: space[setting]}, 0)]
            assert len(tried) == len(space[setting]), (spec.name, setting)
    assert (
        find_recipe("fusemix").training.lr
        in search_space("fusemix", find_recipe("fusemix"))["training.lr"]
    )
    fixed = ["training.lr=1e-3"]
    assert "training.lr" not in search_space("fusemix", find_recipe("fusemix", fixed), fixed)


def test_a_search_keeps_to_its_time_and_survives_a_failure():
    recipe = find_recipe("fusemix")
    space = {"training.lr": (1e-3, 1e-2, 1e-4), "adapter.blocks": (4, 1)}
    tried = []

    def fit_one(changed):
        tried.append(changed)
        if len(tried) == 1:
            raise RuntimeError("no memory")
        return len(tried)

    found, facts = search(recipe, space, SearchBudget(seconds=1e9), 0, torch.device("cpu"),
                          fit_one, float)  # fmt: skip
    assert len(tried) == 6 == found and "no memory" in facts["tried"][0]["error"]
    assert len({str(t["set"]) for t in facts["tried"]}) == 6
    _, facts = search(recipe, space, SearchBudget(seconds=1e-9), 0, torch.device("cpu"),
                      lambda changed: 1, float)  # fmt: skip
    assert len(facts["tried"]) == 1 and facts["chosen"] == []
    with pytest.raises(RuntimeError, match="no memory"):
        tried.clear()
        search(recipe, space, SearchBudget(trials=1), 0, torch.device("cpu"), fit_one, float)


@pytest.mark.parametrize("given", ["60", 60, "60s", "2m", "1.5h"])
def test_budgets_of_a_search(given):
    found = SearchBudget.of(given)
    assert (found.trials == 60) == (str(given) == "60")
    assert SearchBudget.of(str(found).replace(" trials", "")) == found


@pytest.mark.parametrize("given", ["", "soon", 0, -3, "0s", "20 steps", 1.5, True, None])
def test_faults_of_a_budget(given):
    with pytest.raises(ConfigError, match="search is"):
        SearchBudget.of(given)


def test_a_batch_of_the_benchmark_replaces_an_own_one_aloud(tmp_path):
    sets = {"w": {"source": "x.csv", "encoders": ENCODERS}}
    config = bench_config({"sets": sets, "methods": ["fusemix", "cca", SMALL], "batch": 64})
    published, closed, own = config.methods
    assert batch_of(own, config) is None and batch_of(published, config) == 64
    assert "64 pairs a step" in run._other_batch(published, config)
    assert "its own 20,480" in run._other_batch(published, config)
    assert not run._other_batch(own, config) and not run._other_batch(closed, config)


def one_seed(*methods):
    """Lines of a seed; the queries that `kcca` has right are independent of those of the others."""
    lines = lines_of(sizes=(1000,), seeds=(0,), methods=methods)
    other = line_of("icons", 1000, 9, "kcca")
    own = {k: other[k] for k in ("hits", "test")}
    return [one | own if one["method"] == "kcca" else one for one in lines]


def test_a_tie_is_said_and_a_difference_too():
    few = one_seed("auto", "kcca", "sail")
    found = column(summarise(few), Place("icons", few[0]["label"], 1000), "chosen")
    assert found.best in ("auto", "kcca") and len(found.tied) == 1
    assert found.leaders == {"auto", "kcca"}
    assert f"at this size it is not shown to be ahead of `{found.tied[0]}`" in found.sentence
    [_, both] = columns(summarise(one_seed("auto", "kcca")))
    assert ": no difference at this size." in both.sentence and both.as_dict()["tied"]
    apart = lines_of(sizes=(1000,), methods=("auto", "sail"))
    [_, clear] = columns(summarise(apart))
    assert "ahead of every other method beyond the noise" in clear.sentence and not clear.tied


def test_an_interval_is_named_for_what_it_is():
    one = summarise(lines_of(sizes=(1000,), seeds=(0,)))
    assert "within a split: a bootstrap over 400 linked groups" in intervals_of(one)[0]
    three = summarise(lines_of(sizes=(1000,)))
    assert intervals_of(three) == [
        "± is a 95% interval between 3 seeds, each with its own split (Student's t)."
    ]


def test_tables_for_a_paper(tmp_path):
    one = summarise(one_seed("auto", "kcca", "sail"))
    for line in (line for e in one for line in e.lines.values()):
        for found in line["test"].values():
            found |= {"r5": 50.0, "r10": 60.0}
    text = write_latex(one, tmp_path / "t.tex").read_text()
    assert r"\toprule" in text and r"\caption{icons" in text and "±" not in text
    assert "method & R@1 & R@5 & R@10 & seconds" in text
    assert text.count(r"\textbf{") == 2 and r"auto & \textbf{" in text  # kcca ties
    assert escaped("a_b & 5%") == r"a\_b \& 5\%"
    both = lines_of(sizes=(1000, 10000), methods=("auto", "sail"))
    several = summarise([n for n in both if (n["method"], n["size"]) != ("sail", 10000)])
    text = write_latex(several, tmp_path / "t.tex").read_text()
    assert "method & 1,000 pairs & 10,000 pairs" in text and r" & -- \\" in text
    rows = list(csv.DictReader(write_csv(one, tmp_path / "t.csv").read_text().splitlines()))
    assert set(rows[0]) == set(HEADS)
    assert [(r["method"], r["tied_with_best"]) for r in rows] == [
        ("auto", "yes"), ("kcca", "yes"), ("sail", "no")]  # fmt: skip
