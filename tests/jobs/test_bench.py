"""The benchmark: same latents for every method, nothing made twice, who wins said rightly."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pairs import write_world
from scipy import stats
from toys import ToyText
from typer.testing import CliRunner

from fusemix_core import bench
from fusemix_core.benchmark.config import bench_config
from fusemix_core.benchmark.fitting import within
from fusemix_core.benchmark.hits import (
    difference,
    packed_bits,
    packed_labels,
    unpacked_bits,
    unpacked_labels,
)
from fusemix_core.benchmark.latents import sized
from fusemix_core.benchmark.lines import add_line, of_scorer, read_lines
from fusemix_core.benchmark.page import overview, sentence, write_report
from fusemix_core.benchmark.summary import (
    Place,
    Verdict,
    is_whole,
    summarise,
    verdicts,
)
from fusemix_core.cli.app import app
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.errors import ArtefactError, ConfigError, UnknownNameError
from fusemix_core.evaluation.seeds import mean_interval, student_95
from fusemix_core.interfaces import Adapter, PairedLatents, ResidentLatents
from fusemix_core.registry import registry

TOYS = Path(__file__).parents[1] / "toys.py"
ENCODERS = {"image": f"{TOYS}:ToyImage", "text": f"{TOYS}:ToyText"}
SMALL = {
    "label": "small",
    "recipe": "fusemix",
    "set": ["training.epochs=2", "adapter.blocks=1", "dim=8"],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world") / "w", count=160)


def tables(world, **more):
    """A benchmark of two methods on the world."""
    own = {"source": str(world), "encoders": ENCODERS, "test_fraction": 0.3}
    given = {"methods": ["auto", SMALL], "seeds": 2, "pairs": [40, "all"], **more}
    return {"sets": {"world": own}, **given}


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """The lines of a benchmark that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEMIX_HOME", str(tmp_path_factory.mktemp("home")))
        return bench(tables(world), tmp_path_factory.mktemp("whole"))


def test_every_method_is_given_the_same_and_measured(whole):
    lines = whole
    assert len(lines) == 2 * 2 * 2
    for line in lines:
        assert line["pairs"]["train"] + line["pairs"]["validation"] == (line["size"] or 112)
        assert line["pairs"]["test"] == 48
        assert set(line["test"]) == {spec.name for _, spec in registry.all_components("scorer")}
        assert line["scorer"] in line["test"]
        assert line["versions"]["fusemix"] and line["environment"]["packages"]["torch"]
    for seed in (0, 1):
        assert len({line["latents"] for line in lines if line["seed"] == seed}) == 1
    assert len({line["latents"] for line in lines}) == 2


def test_a_line_says_how_the_fit_went_and_what_it_cost(whole):
    for line in whole:
        assert line["cpu_seconds"] > 0 and line["seconds"] > 0
        scores = [point[4] for point in line["trajectory"]]
        assert scores[:-1] == sorted(scores[:-1])  # each the best so far, and the last one
        assert line["trajectory"][-1][0] <= line["seconds"] and 0 <= line["trajectory"][0][3] <= 100
        if line["method"] == "small":
            assert line["trajectory"][-1][2] == line["steps"] > 0


def test_a_line_says_which_queries_were_right(whole):
    for line in whole:
        for scorer, found in line["hits"].items():
            for name, text in found.items():
                bits = unpacked_bits(text, line["queries"][name]["count"])
                r1 = line["test"][scorer]["directions"][name]["r1"]
                assert 100 * bits.mean() == pytest.approx(r1, abs=1e-3)
        labels = [unpacked_labels(q["groups"]) for q in line["queries"].values()]
        assert [len(n) for n in labels] == [48, 48] and set(labels[0]) == set(labels[1])


def test_methods_are_compared_query_by_query(whole):
    by_method = {e.method: e.lines for e in summarise(whole) if e.place.size is None}
    mean, (low, high) = difference(by_method["auto"], by_method["small"])
    r1 = {m: [of_scorer(n, n["test"], "chosen")["r1"] for n in lines.values()]
          for m, lines in by_method.items()}  # fmt: skip
    assert mean == pytest.approx(np.mean(r1["auto"]) - np.mean(r1["small"]), abs=1e-3)
    assert low < mean < high
    back = difference(by_method["small"], by_method["auto"])
    assert back[0] == pytest.approx(-mean)
    assert difference(by_method["auto"], by_method["auto"]) == (0.0, [0.0, 0.0])
    assert difference(by_method["auto"], {}) is None
    old = {s: {k: v for k, v in n.items() if k != "hits"} for s, n in by_method["auto"].items()}
    assert difference(old, by_method["small"]) is None and is_whole(old[0])


def test_bits_and_labels_come_back():
    generator = np.random.default_rng(0)
    for count in (1, 7, 8, 2000):
        bits = generator.random(count) < 0.3
        assert (unpacked_bits(packed_bits(bits), count) == bits).all()
        labels = generator.integers(0, count, count)
        assert (unpacked_labels(packed_labels(labels)) == labels).all()
    assert len(packed_labels(np.arange(2000))) < 100


def test_a_benchmark_goes_on_where_it_was_stopped(whole, world, tmp_path, monkeypatch):
    from fusemix_core.benchmark import run

    made, fit = [], run.fit

    def counted(*arguments):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(arguments)
        return fit(*arguments)

    monkeypatch.setattr(run, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        bench(tables(world), tmp_path)
    with open(tmp_path / "results.jsonl", "a") as file:
        file.write('{"key": "cut sho')  # as a kill in the middle of a line leaves it
    monkeypatch.setattr(run, "fit", lambda *a: made.append(a) or fit(*a))
    lines = bench(tables(world), tmp_path)
    assert len(made) == len(lines) == 8
    assert [n["key"] for n in read_lines(tmp_path / "results.jsonl")] == [n["key"] for n in lines]

    def without_times(line):
        costs = ("seconds", "cpu_seconds", "memory_mb", "environment")
        course = [point[2:] for point in line["trajectory"]]
        return {k: v for k, v in line.items() if k not in costs} | {"trajectory": course}

    assert list(map(without_times, lines)) == list(map(without_times, whole))


def test_other_data_settings_or_budget_are_measured_anew(world, tmp_path):
    first = {n["key"] for n in bench(tables(world, seeds=1, pairs=40), tmp_path)}
    other = {**SMALL, "set": [*SMALL["set"], "mixup=none"]}
    changes = [
        {"methods": [other]},
        {"budget": 500},
        {"batch": 16},
    ]
    for change in changes:
        found = {n["key"] for n in bench(tables(world, seeds=1, pairs=40) | change, tmp_path)}
        assert not found & first, change
    grown = write_world(tmp_path / "grown", count=170)
    assert not {n["key"] for n in bench(tables(grown, seeds=1, pairs=40), tmp_path)} & first


class Broken(Adapter):
    def __init__(self, dim_in, dim_out):
        super().__init__()
        raise RuntimeError("no such luck")

    def forward(self, latents):
        return latents


def test_a_method_that_fails_is_told_and_tried_again(world, tmp_path):
    registry.add_component("adapter", "broken-one", Broken)
    bad = {"label": "bad", "recipe": "fusemix", "set": ["adapter=broken-one"]}
    given = tables(world, methods=["auto", bad], seeds=1, pairs="all")
    lines = bench(given, tmp_path)
    assert "no such luck" in lines[1]["error"] and "error" not in lines[0]
    assert len(bench(given, tmp_path)) == 2
    assert len(read_lines(tmp_path / "results.jsonl")) == 3
    text = write_report(lines, tmp_path).read_text()
    assert "`bad` failed: RuntimeError('no such luck')" in text


def test_the_report_has_tables_intervals_and_a_plot(whole, tmp_path):
    text = write_report(whole, tmp_path).read_text()
    assert "| method | 40: cosine | 40: chosen | 40: s | 112: cosine |" in text and " ± " in text
    plot = tmp_path / text.partition("](")[2].partition(")")[0]
    assert "<svg" in plot.read_text()
    before = plot.read_bytes()
    write_report(whole, tmp_path)
    assert plot.read_bytes() == before


def test_zero_shot_by_the_prompts_of_the_classes(world, tmp_path):
    given = tables(world, seeds=1, pairs="all", methods="auto")
    given["sets"]["world"]["zero_shot"] = {
        "things": {"source": str(world), "modality": "image", "label_column": "thing"}
    }
    [line] = bench(given, tmp_path)
    found = line["zero_shot"]["things"]
    assert 0 <= found["cosine"]["top1"] <= 100 and found["cosine"]["mean_per_class"] > 0
    text = write_report([line], tmp_path).read_text()
    assert "| zero-shot top-1, % | things, 112 pairs |" in text


def test_encoders_and_views_are_combined(world):
    grid = f"{TOYS}:GridImage"
    given = tables(world)
    given["sets"]["world"]["encoders"] = {"image": [ENCODERS["image"], grid], "text": "toy-text"}
    registry.add(ToyText)
    config = bench_config(given)
    assert [c.label for c in config.combinations(config.sets[0])] == [
        "ToyImage + toy-text",
        "GridImage + toy-text",
    ]


def test_a_budget_bounds_what_a_training_sees():
    recipe = Recipe(
        "r",
        Part("gradient"),
        mixup=Part("fusemix"),
        training=Training(batch_size=64, epochs=100),
    )
    limited = within(recipe, None, 640, rows=1000).training
    assert (limited.batch_size, limited.max_steps) == (64, 10)
    assert within(recipe, 32, 640, rows=1000).training.max_steps == 20
    assert within(recipe, 64, 640, rows=40).training.max_steps == 32  # 20 pairs fill the batch
    closed = Recipe("c", Part("cca"))
    assert within(closed, 32, 640, rows=100) == closed


def test_sizes_keep_the_proportion_and_the_test_rows():
    tables_ = {"a": ResidentLatents(torch.zeros(100, 2)), "b": ResidentLatents(torch.zeros(100, 2))}
    links = torch.arange(100)[:, None].expand(-1, 2)
    splits = {
        n: PairedLatents(tables_, links[s])
        for n, s in (("train", slice(80)), ("validation", slice(80, 90)), ("test", slice(90, 100)))
    }
    few = sized(splits, 45, seed=3)
    assert [len(few[n]) for n in splits] == [40, 5, 10]
    assert torch.equal(few["test"].links, splits["test"].links)
    assert set(few["train"].links[:, 0].tolist()) <= set(range(80))
    assert sized(splits, None, 0) is splits and sized(splits, 90, 0) is splits


def line(method, seed, r1, test="a", label="x + y", size=None):
    found = {"r1": r1, "r5": r1, "r10": r1, "r1_interval": [r1 - 2, r1 + 2]}
    return {
        "set": "s", "label": label, "size": size, "method": method, "seed": seed, "seconds": 1.0,
        "scorer": "csls", "test": {"cosine": {**found, "r1": r1 - 1}, "csls": found},
        "pairs": {"train": 80, "validation": 10, "test": 10}, "zero_shot": {},
        "test_items": test, "batch": None, "budget": None, "versions": {},
    }  # fmt: skip


def test_differences_are_taken_seed_by_seed():
    ours, theirs = [10.0, 20.0, 30.0], [11.0, 21.2, 30.8]
    lines = [
        line(method, seed, r1, test=str(seed))
        for method, values in (("auto", ours), ("other", theirs))
        for seed, r1 in enumerate(values)
    ]
    [verdict] = verdicts(summarise(lines))
    mean, half = verdict.against["other"]
    wanted = stats.ttest_rel(theirs, ours).confidence_interval()
    assert (mean - half, mean + half) == pytest.approx((wanted.low, wanted.high), abs=2e-3)
    assert verdict.best == "other" and verdict.ahead == ["other"]
    told = "\n".join(overview([verdict]))
    assert "behind beyond the noise (95%) in 1 of them" in told and "`other` by 1.0" in told


def test_seeds_that_share_their_test_items_prove_nothing():
    lines = [line(m, s, r) for m, r in (("auto", 10.0), ("other", 12.0)) for s in (0, 1)]
    entries = summarise(lines)
    [verdict] = verdicts(entries)
    assert verdict.against["other"] == (2.0, None) and not verdict.ahead
    assert entries[0].interval("csls") == (10.0, 2.0)  # of the items, as the bootstrap has it
    assert "`other` has the higher mean, by 2.0" in overview([verdict])[-1]


def test_seeds_that_share_their_test_items_are_compared_query_by_query():
    generator = np.random.default_rng(0)
    lines = []
    for seed in (0, 1):
        ours = generator.random(500) < 0.3
        for method, bits in (("auto", ours), ("other", ours | (generator.random(500) < 0.1))):
            one = line(method, seed, 100 * bits.mean())
            one["queries"] = {"x->y": {"count": 500, "groups": packed_labels(np.arange(500))}}
            lines.append(one | {"hits": {"csls": {"x->y": packed_bits(bits)}}})
    [verdict] = verdicts(summarise(lines))
    mean, half = verdict.against["other"]
    assert verdict.ahead == ["other"] and 0 < half < mean
    low, high = difference(*(e.lines for e in reversed(summarise(lines))))[1]
    assert half == pytest.approx((high - low) / 2)


def test_classes_have_verdicts_of_their_own():
    lines = [line(m, s, 10.0, test=str(s)) for m in ("auto", "other") for s in (0, 1)]
    for one, top1 in zip(lines, (50.0, 60.0, 55.0, 66.0), strict=True):
        one["zero_shot"] = {"clothes": {n: {"top1": top1} for n in one["test"]}}
    [verdict] = verdicts(summarise(lines), zero_shot="clothes")
    assert (verdict.best, verdict.value, verdict.default) == ("other", 60.5, 55.0)
    assert verdict.against["other"][0] == pytest.approx(5.5)
    assert not verdicts(summarise(lines), zero_shot="shoes")


@pytest.mark.parametrize("freedom", [1, 4, 10, 20, 21, 30, 200])
def test_students_quantile(freedom):
    assert student_95(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-3)
    assert mean_interval([3.0]) == (3.0, None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"methods": ["nothing-such"]}, "nothing-such"),
        ({"methods": ["auto", "auto"]}, "Two methods"),
        ({"methods": [{"set": []}]}, "not a method"),
        ({"budget": 0}, "budget"),
        ({"pairs": ["some"]}, "pairs"),
        ({"seeds": "many"}, "seeds"),
        ({"sets": {}}, "no set"),
        ({"sets": {"x": {"source": "x.csv", "encoders": {"image": "a"}}}}, "two modalities"),
        ({"sets": {"x": {"encoders": ENCODERS}}}, "source"),
        ({"sets": {"x": {"source": "x", "encoders": ENCODERS, "colums": {}}}}, "colums"),
        ({"sets": {"x": {"source": "x", "encoders": ENCODERS, "methods": ["y"]}}}, "'y'"),
        ({"sed": 1}, "sed"),
        ({"seeds": 10**12}, "seeds"),
        ({"device": 3}, "device"),
        ({"sets": {"x": 3}}, "not a table"),
        ({"sets": {"x": {"encoders": [1]}}}, "not a table"),
        ({"sets": {"x": {"encoders": {"image": 3, "text": "x"}}}}, "not a list of names"),
        ({"methods": [{"recipe": "auto", "set": [3]}]}, "not a list of names"),
        ({"methods": [{"recipe": "auto", "label": [[]]}]}, "not a list of names"),
    ],
)
def test_faults_of_a_config(world, change, says):
    with pytest.raises((ConfigError, UnknownNameError), match=says):
        bench_config(tables(world) | change)


def test_a_line_without_its_figures_is_not_taken_for_a_result():
    test = {"cosine": {"r1": 1.0, "r1_interval": [0, 2]}}
    line = {"test": test, "scorer": "cosine", "seconds": 1.0, "zero_shot": {}, "test_items": "d",
            "pairs": {"train": 3, "validation": 2}}  # fmt: skip
    assert is_whole(line)
    for name in line:
        assert not is_whole({k: v for k, v in line.items() if k != name})
        assert not is_whole({**line, name: "x"}) or name == "test_items"
    assert not is_whole({**line, "seconds": float("nan")})


def test_the_best_may_have_no_seed_in_common_with_the_default():
    place = Place("s", "a + b", None)
    told = sentence(Verdict(place, 10, "csa", 20.0, 10.0, {}))
    assert told == "- 10 pairs: best `csa`, 20.0; `auto` 10.0."


def test_a_damaged_line_is_told(tmp_path):
    path = tmp_path / "results.jsonl"
    add_line(path, {"key": "a"})
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(ArtefactError, match="line 1"):
        read_lines(path)


def run(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_from_the_command_line(world, tmp_path):
    sides = ["--a", ENCODERS["image"], "--b", ENCODERS["text"]]
    more = ["--methods", "auto", "--pairs", "40,all", "--seeds", "1", "--out", tmp_path / "o"]
    done = run(*sides, "--data", world, *more)
    assert done.exit_code == 0, done.output
    assert "R@1 by cosine" in done.stdout and (tmp_path / "o/report.md").exists()
    as_json = json.loads(run(*sides, "--data", world, *more, "--json").stdout)
    assert [n["size"] for n in as_json["fits"]] == [40, None]


def test_from_a_file_whose_paths_are_below_its_folder(world, tmp_path):
    config = world.parent / "bench.toml"
    config.write_text(
        'methods = ["auto"]\nseeds = 1\n[sets.world]\nsource = "pairs.csv"\n'
        f'encoders = {{image = "{ENCODERS["image"]}", text = "{ENCODERS["text"]}"}}\n'
    )
    done = run("--config", config, "--out", tmp_path / "o")
    assert done.exit_code == 0, done.output
    assert run("--config", config, "--data", world).exit_code == 2
    moved = tmp_path / "bench.toml"
    moved.write_text(config.read_text())
    assert run("--config", moved, "--root", world.parent, "--out", tmp_path / "o").exit_code == 0
