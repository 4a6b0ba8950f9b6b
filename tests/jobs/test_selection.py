"""Choosing the pairs to fit on: by `align`, `bench` and `rank`, of the training rows alone."""

import json
from pathlib import Path

import pytest
import torch
from pairs import write_world
from refused import refused
from toys import ToyImage, ToyText
from typer.testing import CliRunner

from fusemix_core import align, bench, rank
from fusemix_core.cli.app import app
from fusemix_core.errors import ConfigError, ContractError, UnknownNameError
from fusemix_core.interfaces import Selector
from fusemix_core.registry import registry
from fusemix_core.runs.reporter import Reporter
from fusemix_core.selectors.dpp import dpp_of_latents
from fusemix_core.selectors.uniform import uniform_subset

TOYS = Path(__file__).parents[1] / "toys.py"
BY_NAME = ["--a", f"{TOYS}:ToyImage", "--b", f"{TOYS}:ToyText"]
ENCODERS = {"image": ToyImage, "text": ToyText}
LINEAR = {"recipe": "auto", "device": "cpu"}


@pytest.fixture
def data(tmp_path):
    return write_world(tmp_path / "w", count=100)


class Notes(Reporter):
    def __init__(self):
        self.notes, self.pairs = [], []

    def note(self, text):
        self.notes.append(text)

    def on_pairs(self, done, total):
        self.pairs.append((done, total))


def test_the_pairs_chosen_are_fitted_on_and_no_others_are_touched(data, tmp_path):
    every = align(ENCODERS, data, out=tmp_path / "all", **LINEAR).encoded
    told = Notes()
    done = align(
        ENCODERS, data, select="dpp", pairs=20, overrides=["selector.by=text"], out=tmp_path / "r",
        reporter=told, **LINEAR,
    )  # fmt: skip
    train = every.paired("train")
    wanted = dpp_of_latents(train.tables["text"].rows(train.links[:, 1]), 20)
    rows = torch.from_numpy(every.dataset.splits["train"])[wanted]
    chosen = [json.loads(line) for line in (tmp_path / "r/chosen.jsonl").read_text().splitlines()]
    assert chosen == [{"path": str(data), "row": int(r) + 1} for r in rows]
    splits, before = done.encoded.dataset.splits, every.dataset.splits
    assert splits["train"].tolist() == sorted(rows.tolist())
    for name in ("validation", "test"):
        assert splits[name].tolist() == before[name].tolist()
    assert done.results["pairs"]["train"] == 20
    assert (20, 20) in told.pairs
    assert len(told.notes) == 1 and "100 rows seen, 100 used, 0 rejected" in told.notes[0]
    config = (tmp_path / "r/config.toml").read_text()
    assert "pairs = 20" in config and "[recipe.selector.options]" in config


def test_pairs_alone_are_drawn_by_the_seed(data, tmp_path):
    for seed in (0, 3):
        done = align(ENCODERS, data, pairs=30, seed=seed, out=tmp_path / f"{seed}", **LINEAR)
        every = align(ENCODERS, data, seed=seed, out=tmp_path / f"all{seed}", **LINEAR)
        rows = every.encoded.dataset.splits["train"]
        wanted = sorted(rows[uniform_subset(len(rows), 30, seed)].tolist())
        assert done.encoded.dataset.splits["train"].tolist() == wanted


class Greedy(Selector):
    """Gives what it is told to."""

    def __init__(self, *, rows=(0, 1, 2)):
        self.rows = rows

    def select(self, pairs, k, context):
        return torch.tensor(self.rows)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [0, 0], [0, 900], [-1, 2], [0.5, 1.0], [0, 1]])
def test_what_are_no_rows_is_a_fault_of_the_selector(rows, data, tmp_path):
    registry.add_component("selector", "greedy", Greedy, rows=(0, 1, 2))
    settings = {"recipe": {"name": "auto", "selector": {"name": "greedy"}, "pairs": 3}}
    settings["recipe"]["selector"]["options"] = {"rows": rows}
    with pytest.raises(ContractError, match="The selector 'greedy'"):
        align(ENCODERS, data, out=tmp_path / "r", device="cpu", **settings)


def test_fewer_are_told(data, tmp_path):
    lines = data.read_text().splitlines()
    data.write_text("\n".join(lines[:80] + [f"0.png,another {i},car" for i in range(20)]))
    told = Notes()
    done = align(ENCODERS, data, select="dpp", pairs=70, out=tmp_path / "r", reporter=told,
                 **LINEAR)  # fmt: skip
    count = done.results["pairs"]["train"]
    assert count < 70 and told.notes[-1].startswith(f"only {count} of 70 pairs were chosen: ")


WRONG = [
    (["--select", "dpp"], "How many pairs"),
    (["--pairs", "1"], "2 pairs or more"),
    (["--pairs", "5", "--select", "dppp"], "Did you mean 'dpp'"),
    (["--pairs", "5", "--select", "dpp", "--set", "selector.bye=text"], "bye"),
    (["--pairs", "81"], "81 of 80 training pairs"),
    (["--pairs", "8", "--select", "dpp", "--set", "selector.by=sound"], "sound"),
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    data = write_world(tmp_path_factory.mktemp("wrong") / "w", count=100)
    # By name: a file of encoders imports torch itself.
    args = ["align", "--a", "efficientnet-lite0", "--b", "minilm", "--data", data, "--dry-run"]
    return refused(args, [options for options, _ in WRONG])


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_what_is_wrong_is_said_before_torch_is_imported(options, said, outcomes):
    outcomes[tuple(options)].check(said)


def test_the_command_line(data, tmp_path):
    args = ["align", *BY_NAME, "--data", str(data), "--device", "cpu", "--out", str(tmp_path / "r")]
    args += ["--select", "dpp", "--pairs", "25", "--set", "selector.tolerance=1e-9"]
    plan = CliRunner().invoke(app, [*args, "--dry-run"])
    assert "chosen:  25 of the training pairs, by dpp" in plan.output
    done = CliRunner().invoke(app, [*args, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["pairs"]["train"] == 25


def test_a_benchmark_compares_selectors(data, tmp_path):
    methods = [
        {"label": name, "recipe": "auto", "set": ["aligner.landmarks=0", f"selector={name}"]}
        for name in ("uniform", "dpp")
    ]
    names = {"image": f"{TOYS}:ToyImage", "text": f"{TOYS}:ToyText"}
    sets = {"world": {"source": str(data), "encoders": names, "test_fraction": 0.3}}
    config = {"sets": sets, "methods": methods, "seeds": 1, "pairs": [40, "all"]}
    found = {(line["method"], line["size"]): line for line in bench(config, tmp_path)}
    assert {line["pairs"]["train"] for line in found.values()} == {34, 60}
    few = [found[name, 40]["test"]["cosine"]["r10"] for name in ("uniform", "dpp")]
    every = [found[name, None]["test"]["cosine"]["r10"] for name in ("uniform", "dpp")]
    assert few[0] != few[1] and every[0] == pytest.approx(every[1])
    methods[0]["set"].append("pairs=10")
    with pytest.raises(ConfigError, match="how many pairs"):
        bench(config, tmp_path)


def test_a_ranking_by_a_recipe_heeds_its_pairs(data):
    recipe = {"name": "auto", "aligner": {"options": {"landmarks": 0}}}
    whole = rank([ToyImage], [ToyText], data, recipe=recipe, shuffles=0)
    few = rank([ToyImage], [ToyText], data, recipe={**recipe, "pairs": 20}, shuffles=0)
    assert few.pairings[0].recall_at_1 == whole.pairings[0].recall_at_1
    assert few.pairings[0].probe["score"] != whole.pairings[0].probe["score"]


def test_a_modality_that_a_model_does_not_have(data, tmp_path):
    with pytest.raises(UnknownNameError, match="audio"):
        align(
            ENCODERS,
            data,
            select="dpp",
            pairs=9,
            overrides=["selector.by=audio"],
            out=tmp_path / "r",
        )
    assert not (tmp_path / "r").exists()
