"""A study with the benchmark: limits on training, sizes of the training split, a part at a time."""

import json
from pathlib import Path

import pytest
import torch
from pairs import write_world
from typer.testing import CliRunner

from fusemix_core import bench
from fusemix_core.benchmark import limits
from fusemix_core.benchmark.config import bench_config
from fusemix_core.benchmark.latents import sized, with_wrong
from fusemix_core.benchmark.limits import shortened
from fusemix_core.benchmark.narrowing import narrowed
from fusemix_core.benchmark.run import trials_of
from fusemix_core.cli.app import app
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.errors import ConfigError, FusemixError
from fusemix_core.interfaces import Adapter, FitContext, PairedLatents, ResidentLatents
from fusemix_core.registry import registry

TOYS = Path(__file__).parents[1] / "toys.py"
ENCODERS = {"image": f"{TOYS}:ToyImage", "text": f"{TOYS}:ToyText"}
NETWORK = ["adapter.blocks=1", "dim=8"]
SMALL = {"label": "small", "recipe": "fusemix", "set": ["training.epochs=2", *NETWORK]}
LONG = {"label": "long", "recipe": "fusemix", "set": ["training.epochs=100000", *NETWORK]}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A hundred pairs in lines that say their split: 60 to train on, 20 and 20 held out."""
    folder = tmp_path_factory.mktemp("world") / "w"
    path = write_world(folder, count=100)
    header, *rows = path.read_text().splitlines()
    lines = []
    for number, row in enumerate(rows):
        cells = dict(zip(header.split(","), row.split(","), strict=True))
        split = ("train", "train", "train", "validation", "test")[number % 5]
        lines.append(json.dumps(cells | {"split": split, "group": f"concept {number}"}))
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "pairs.jsonl"


def tables(world, **more):
    own = {
        "source": str(world),
        "columns": {"image": "image", "text": "text"},
        "split_column": "split",
        "group_by": "group",
        "encoders": ENCODERS,
    }
    given = {"methods": ["cca", SMALL], "seeds": 2, "train": [20, "all"], **more}
    return {"sets": {"world": own}, **given}


def latents(rows):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 6, generator=generator)
    tables_ = {"a": ResidentLatents(x), "b": ResidentLatents(x @ torch.randn(6, 5))}
    return PairedLatents(tables_, torch.arange(rows)[:, None].repeat(1, 2))


TRAINED = Recipe(
    "trained",
    Part("gradient"),
    dim=4,
    adapter=Part("linear"),
    mixup=Part("fusemix"),
    objective=Part("infonce"),
    training=Training(batch_size=8, epochs=50, schedule="epoch-cosine"),
)


@pytest.mark.parametrize(
    ("seconds", "epochs", "every", "rows"),
    [
        (50.1, 50, 1, 80),  # an epoch of 5 steps and an evaluation takes one second: all fit
        (40.8, 50, 4, 80),  # 50 · 0.75 s and 13 evaluations
        (7.6, 9, 4, 80),  # 9 · 0.75 s and three evaluations
        (1.1, 1, 4, 80),
        (0.75, 1, 4, 16 * 3),  # three steps and an evaluation
        (0.001, 1, 4, 16),
    ],
)
def test_a_limit_shortens_the_schedule(monkeypatch, seconds, epochs, every, rows):
    monkeypatch.setattr(limits, "_probed", lambda *_: (0.15, 0.25, 0.0))
    train = latents(80)
    recipe, given, facts = shortened(TRAINED, train, train, FitContext(seed=1), seconds)
    assert (recipe.training.epochs, recipe.training.evaluate_every) == (epochs, every)
    assert recipe.training.schedule == ("epoch-cosine" if epochs == 50 else "cosine")
    assert len(given) == rows
    assert facts["own_steps"] == 250 and facts["steps"] == epochs * rows // 16
    again = shortened(TRAINED, train, train, FitContext(seed=1), seconds)[1]
    assert torch.equal(given.links, again.links)


def test_a_probe_times_steps_and_evaluations():
    train = latents(80)
    _, given, facts = shortened(TRAINED, train, train, FitContext(seed=1), 1e6)
    assert facts["step_seconds"] > 0 and facts["evaluation_seconds"] > 0
    assert len(given) == 80 and facts["steps"] == facts["own_steps"] == 250


@pytest.mark.slow
def test_a_training_is_limited_by_the_time_of_another_method(world, tmp_path):
    given = tables(world, methods=[LONG, "cca"], limit={"times": 2, "of": "cca"}, seeds=1)
    lines = bench(given, tmp_path)
    assert [n["method"] for n in lines] == ["cca", "long"] * 2
    for first, line in zip(lines[::2], lines[1::2], strict=True):
        assert line["limit"]["seconds"] == pytest.approx(2 * first["cpu_seconds"], abs=2e-3)
        assert line["steps"] == line["limit"]["steps"] < line["limit"]["own_steps"]
        assert "limit" not in first and "limited" not in first
    other = bench(tables(world, methods=[LONG, "cca"], limit=0.2, seeds=1), tmp_path)
    assert other[0]["key"] != lines[1]["key"] and other[1]["key"] == lines[0]["key"]
    assert other[0]["limit"]["seconds"] == 0.2


def test_a_method_may_have_a_limit_of_its_own(world):
    own = {**SMALL, "label": "own", "limit": 7200}
    given = tables(world, methods=[SMALL, own, "cca"], limit={"times": 5, "of": "cca"})
    config = bench_config(given)
    limits = {m.label: config.limit_of(m) for m in config.methods}
    assert limits["small"].times == 5 and limits["own"].seconds == 7200 and limits["cca"] is None
    alone = narrowed(config, {"method": ["own"]})
    assert [m.label for m in alone.methods] == ["own"]  # it needs nobody's time
    given["sets"]["world"]["methods"] = ["small"]
    with pytest.raises(ConfigError, match="no method of sets.world is called 'cca'"):
        bench_config(given)


class Broken(Adapter):
    def __init__(self, dim_in, dim_out):
        raise RuntimeError("no such luck")

    def forward(self, latents):
        return latents


def test_without_the_time_of_the_reference_a_limited_method_fails(world, tmp_path):
    registry.add_component("adapter", "broken-reference", Broken)
    broken = {"label": "broken", "recipe": "fusemix", "set": ["adapter=broken-reference"]}
    limit = {"times": 5, "of": "broken"}
    given = tables(world, methods=[SMALL, broken], limit=limit, seeds=1, train=20)
    lines = bench(given, tmp_path)
    assert all("error" in line for line in lines)
    assert "'broken', whose time limits the others, has no fit here" in lines[1]["error"]


def test_sizes_of_the_training_split_leave_the_others_whole(world, tmp_path):
    lines = bench(tables(world), tmp_path)
    counts = [(n["pairs"]["train"], n["pairs"]["validation"], n["pairs"]["test"]) for n in lines]
    assert counts == [(20, 20, 20), (20, 20, 20), (60, 20, 20), (60, 20, 20)] * 2
    assert len({n["test_items"] for n in lines}) == 1  # the file says what is for testing
    r1 = {
        n["seed"]: n["validation"]["cosine"]
        for n in lines
        if (n["size"], n["method"]) == (20, "cca")
    }
    assert r1[0] != r1[1]  # each seed takes pairs of its own


def test_seeds_take_their_own_part_of_the_training_rows():
    pairs = latents(50)
    splits = {"train": pairs, "validation": pairs, "test": pairs}
    few = [sized(splits, 10, seed, whole_validation=True) for seed in (0, 1)]
    assert [len(f["train"]) for f in few] == [10, 10] and few[0]["validation"] is pairs
    assert not torch.equal(few[0]["train"].links, few[1]["train"].links)
    assert sized(splits, 50, 0, whole_validation=True) is splits


def test_wrong_pairs_are_of_the_training_split_only():
    splits = {"train": latents(50), "test": latents(50)}
    found = with_wrong(splits, 0.4, seed=2)
    changed = found["train"].links[:, 1] != splits["train"].links[:, 1]
    assert changed.sum() == 20
    assert torch.equal(found["train"].links[:, 0], splits["train"].links[:, 0])
    assert torch.equal(found["train"].links[:, 1].sort().values, torch.arange(50))
    assert found["test"] is splits["test"] and with_wrong(splits, 0.0, 2) is splits
    assert torch.equal(with_wrong(splits, 0.4, 2)["train"].links, found["train"].links)


def test_wrong_pairs_are_measured_anew(world, tmp_path):
    given = tables(world, methods="cca", train="all", seeds=1)
    [right] = bench(given, tmp_path)
    given["sets"]["world"]["wrong"] = 0.4
    [wrong] = bench(given, tmp_path)
    assert wrong["key"] != right["key"] and wrong["wrong"] == 0.4
    assert wrong["test"] != right["test"] and wrong["test_items"] == right["test_items"]


def test_a_part_of_a_benchmark_has_the_keys_of_the_whole(world, tmp_path):
    whole = {n["key"]: n for n in bench(tables(world, seeds=1), tmp_path / "whole")}
    config = bench_config(tables(world, seeds=1))
    part = bench(narrowed(config, {"size": ["20"], "method": ["small"]}), tmp_path / "part")
    assert [(n["size"], n["method"]) for n in part] == [(20, "small")]
    assert part[0]["key"] in whole


def test_the_method_that_limits_others_is_never_left_out(world):
    config = bench_config(tables(world, limit={"times": 5, "of": "cca"}))
    part = narrowed(config, {"method": ["small"], "seed": ["1"]})
    assert [t.method.label for t in trials_of(part)] == ["cca", "small"] * 2
    alone = narrowed(bench_config(tables(world)), {"method": ["small"]})
    assert {t.method.label for t in trials_of(alone)} == {"small"}


@pytest.mark.parametrize(
    ("only", "says"),
    [
        ({"set": ["other"]}, "no set of the benchmark named 'other'"),
        ({"size": ["21"]}, "no size"),
        ({"seed": ["7"]}, "no seed"),
        ({"method": ["auto"]}, "no method"),
        ({"colour": ["red"]}, "no part of a benchmark named 'colour'"),
    ],
)
def test_what_the_benchmark_lacks_is_told(world, only, says):
    with pytest.raises(FusemixError, match=says):
        narrowed(bench_config(tables(world)), only)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"limit": 0}, "limit is 0"),
        ({"limit": "long"}, "limit is 'long'"),
        ({"limit": {"times": 5, "seconds": 3}}, "limit is"),
        ({"limit": {"times": 5}}, "no method of sets.world is called 'auto'"),
        ({"methods": [{**SMALL, "limit": "long"}]}, "methods.limit is 'long'"),
        ({"limit": {"time": 5}}, "limit.time"),
        ({"pairs": 20}, "are both given"),
        ({"train": [2]}, "train contains 2"),
    ],
)
def test_faults_of_limits_and_sizes(world, change, says):
    with pytest.raises(ConfigError, match=says):
        bench_config(tables(world) | change)


@pytest.mark.parametrize("wrong", [-1, 1.5, "all", True])
def test_a_share_of_wrong_pairs_is_from_0_to_1(world, wrong):
    given = tables(world)
    given["sets"]["world"]["wrong"] = wrong
    with pytest.raises(ConfigError, match="wrong is"):
        bench_config(given)


def test_the_command_takes_a_part_and_methods_of_a_further_file(world):
    config = world.parent / "study.toml"
    config.write_text(
        'methods = ["cca"]\nmethods_file = "more.toml"\nseeds = 2\ntrain = [20, "all"]\n'
        '[sets.world]\nsource = "pairs.jsonl"\nsplit_column = "split"\n'
        'columns = {image = "image", text = "text"}\n'
        f'encoders = {{image = "{ENCODERS["image"]}", text = "{ENCODERS["text"]}"}}\n'
    )
    (world.parent / "more.toml").write_text(
        'methods = [{label = "ridge, cca", recipe = "cca", set = ["dim=4"]}]\n'
    )
    part = ["--only", "size=20,all", "--only", "seed=1", "--only", "method=ridge, cca"]
    done = CliRunner().invoke(app, ["bench", "--config", str(config), "--dry-run", "--json", *part])
    assert done.exit_code == 0, done.output
    labels = json.loads(done.stdout)
    assert len(labels) == 2 and all("seed 1: ridge, cca" in label for label in labels)
    (world.parent / "more.toml").write_text("methods = 3\n")
    done = CliRunner().invoke(app, ["bench", "--config", str(config), "--dry-run"])
    assert done.exit_code == 2 and "methods_file" in done.output
