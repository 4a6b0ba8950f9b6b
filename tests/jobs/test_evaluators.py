"""Evaluators of one's own measure a run: results, card and report have what they give."""

import json
from pathlib import Path

import pytest
import started
from pairs import write_world
from toys import ToyImage, ToySound, ToyText
from typer.testing import CliRunner

from fusemix_core import FusedModel, align, extend
from fusemix_core.cli.app import app
from fusemix_core.config import DataConfig, Part, Recipe
from fusemix_core.errors import ConfigError, ContractError, PluginError, UnknownNameError
from fusemix_core.evaluation.running import evaluators_of
from fusemix_core.jobs.evaluate import evaluate
from fusemix_core.measured import PARTS
from fusemix_core.reports.figures import _svg as DRAW
from fusemix_core.runs.config import build_config
from fusemix_core.runs.models import load_model
from fusemix_core.specs import USES

TOYS = {"image": ToyImage, "text": ToyText}
HOW = {"recipe": "fusemix", "device": "cpu", "overrides": ["training.epochs=3", "adapter.blocks=1",
       "dim=8"]}  # fmt: skip
MINE = '''
from fusemix_core import Evaluator
from fusemix_core.sections import Figure, Section, Table


class Spread(Evaluator):
    """How far apart the items of each modality are, times `scale`."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def __call__(self, data):
        found = {m: self.scale * rows.var(0).sum() for m, rows in data.embeddings.items()}
        first = {m: data.describe(m, 0) for m in data.modalities}
        return {"spread": found, "first": first, "split": data.split, "pairs": len(data.links)}

    def sections(self, metrics, data):
        names, values = zip(*metrics["spread"].items())
        table = Table(["modality", "spread"], list(zip(names, values)))
        figure = Figure(lambda axes: axes.bar(names, values), "Bars of spread", alt="Spread")
        return [Section("Spread <b>here</b>", "Sum of variances.", [table], [figure])]


class Plain(Evaluator):
    def __call__(self, data):
        return {"answer": 42, "bank": len(data.bank["text"])}

    uses = ("bank",)


class Raises(Evaluator):
    def __call__(self, data):
        raise RuntimeError("out of order")


class Exits(Evaluator):
    def __call__(self, data):
        raise SystemExit("no licence")


class NotFinite(Evaluator):
    def __call__(self, data):
        return {"spread": {"image": float("nan")}}


class CannotDraw(Evaluator):
    def __call__(self, data):
        return {"answer": 43}

    def sections(self, metrics, data):
        return [Section("Broken", figures=[Figure(lambda axes: axes.plot([1, 2], [1]))])]


class Unknown(Evaluator):
    uses = ("weather",)

    def __call__(self, data):
        return {}
'''


@pytest.fixture
def mine(tmp_path):
    """`./file.py` with evaluators."""
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path / "w")


def page(done):
    return done.folder.report.read_text(encoding="utf-8")


@pytest.mark.parametrize("given", ["name", "table"])
def test_an_evaluator_fills_results_card_and_report(given, mine, world, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "fusemix_core.reports.figures._svg",
        lambda draw, name, *_: drawn.append(name) or "<svg></svg>",
    )
    part = {"name": f"{mine}:Spread", "options": {"scale": 3.0}}
    done = align(
        TOYS, world, out=tmp_path / "r", **HOW,
        evaluators=[part if given == "table" else f"{mine}:Spread"],
    )  # fmt: skip
    found = json.loads(done.folder.results.read_text())["test"]
    assert list(found) == ["retrieval", "geometry", "Spread"] and "failed" not in done.results
    assert found["Spread"]["split"] == "test" and found["Spread"]["pairs"] == 6
    assert found["Spread"]["first"]["text"].startswith("a ")
    assert done.results["validation"]["Spread"]["split"] == "validation"
    spread = found["Spread"]["spread"]["image"]
    assert done.model.metrics["Spread"]["spread"]["image"] == spread
    card = (done.folder.model / "README.md").read_text()
    assert f"Spread.spread.image: {spread:.4g}" in card.replace("\\", "")
    html = page(done)
    assert "Spread &lt;b&gt;here&lt;/b&gt;" in html and "Sum of variances." in html
    assert "Bars of spread" in html and any(name.startswith("Spread") for name in drawn)
    again = FusedModel.from_pretrained(
        done.folder.model, encoders={"image": ToyImage.spec, "text": ToyText.spec}
    )
    assert again.metrics["Spread"] == done.model.metrics["Spread"]


def test_options_reach_the_evaluator_and_one_without_sections_shows_its_numbers(
    mine, world, tmp_path
):
    done = align(TOYS, world, out=tmp_path / "a", **HOW, evaluators=[f"{mine}:Plain"])
    assert done.results["test"]["Plain"] == {"answer": 42, "bank": 52}
    assert "<h2>Plain</h2>" in page(done) and "answer" in page(done)
    names = [f"{mine}:Spread", {"name": "retrieval", "options": {"resamples": 0}}]
    other = align(TOYS, world, out=tmp_path / "b", **HOW, evaluators=names)
    assert list(other.results["test"]) == ["geometry", "Spread", "retrieval"]
    assert other.results["test"]["retrieval"]["mean_r1_interval"] is None


def test_one_that_fails_costs_neither_the_model_nor_the_others(mine, world, tmp_path, monkeypatch):
    monkeypatch.setattr("fusemix_core.reports.figures._svg", DRAW)
    names = [f"{mine}:{n}" for n in ("Raises", "Exits", "NotFinite", "CannotDraw", "Plain")]
    done = align(TOYS, world, out=tmp_path / "r", **HOW, evaluators=names)
    results = json.loads(done.folder.results.read_text())
    assert set(results["failed"]) == {"Raises", "Exits", "NotFinite", "CannotDraw"}
    assert "RuntimeError: out of order" in results["failed"]["Raises"]
    assert "nan in spread.image" in results["failed"]["NotFinite"]
    assert list(results["test"]) == ["retrieval", "geometry", "CannotDraw", "Plain"]
    assert (done.folder.model / "model.safetensors").is_file()
    assert "<h2>Broken</h2>" in page(done) and "<h2>Plain</h2>" in page(done)
    assert page(done).count("<svg") > 2


def test_the_command_line_reports_one_that_fails_and_ends_with_1(mine, world, tmp_path):
    toys = Path(__file__).parents[1] / "toys.py"
    align_ = ["align", "--a", f"{toys}:ToyImage", "--b", f"{toys}:ToyText", "--data", world,
              "--out", tmp_path / "r", "--recipe", "fusemix", "--device", "cpu",
              "--set", "dim=8", "--set", "training.epochs=1", "--set", "adapter.blocks=1",
              "--evaluator", f"{mine}:Raises", "--evaluator", f"{mine}:Spread scale=2"]  # fmt: skip
    ran = CliRunner().invoke(app, list(map(str, align_)))
    assert ran.exit_code == 1
    assert "The evaluator 'Raises' failed: RuntimeError: out of order" in ran.stderr
    assert "The model is saved" in ran.stderr and "Spread <b>here</b>" in ran.stdout
    own = ["eval", tmp_path / "r", "-e", f"image={toys}:ToyImage", "-e", f"text={toys}:ToyText"]
    ran = CliRunner().invoke(app, [*map(str, own), "--evaluator", f"{mine}:Spread", "--json"])
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    results = json.loads((tmp_path / "r" / "results.json").read_text())["test"]
    assert 2 * found["Spread"]["spread"]["text"] == pytest.approx(
        results["Spread"]["spread"]["text"]
    )
    ran = CliRunner().invoke(app, [*map(str, own), "--evaluator", f"{mine}:Raises"])
    assert ran.exit_code == 1 and "R@1" in ran.stdout and "out of order" in ran.stderr


def test_one_that_takes_the_process_down_leaves_the_model(mine, world, tmp_path):
    mine.write_text(MINE.replace('raise RuntimeError("out of order")', "__import__('os')._exit(7)"))
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from fusemix_core import align; from toys import ToyImage, ToyText\n"
        "toys = {'image': ToyImage, 'text': ToyText}\n"
        f"align(toys, {str(world)!r}, out={str(tmp_path / 'r')!r}, **{HOW!r},"
        f" evaluators=[{f'{mine}:Raises'!r}])"
    )
    root = Path(__file__).parents[2]
    done = started.run("-c", code, root, root / "tests")
    assert done.returncode == 7 and not (tmp_path / "r" / "results.json").exists()
    own = {"image": ToyImage.spec, "text": ToyText.spec}
    assert load_model(tmp_path / "r", "cpu", own).modalities == ("image", "text")


def test_evaluate_from_python_raises_what_an_evaluator_raises(mine, world, tmp_path):
    done = align(TOYS, world, out=tmp_path / "r", **HOW)
    config = DataConfig(source=(str(world),))
    found = evaluate(done.model, config, "all", evaluators=[Part(f"{mine}:Spread")])
    of_data = ["trained_on", "rows", "columns", "warnings"]
    assert list(found) == ["retrieval", "geometry", "Spread", *of_data]
    with pytest.raises(ContractError, match="NotFinite"):
        evaluate(done.model, config, "all", evaluators=[Part(f"{mine}:NotFinite")])
    with pytest.raises(ConfigError, match="Plain.*training embeddings"):
        evaluate(done.model, config, "all", evaluators=[Part(f"{mine}:Plain")])


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("nothing", {}, UnknownNameError),
        ("retrieval", {"depth": 3}, UnknownNameError),
        ("{mine}:Spread", {"scale": "large"}, ConfigError),
        ("{mine}:Nothing", {}, ConfigError),
        ("{mine}:Unknown", {}, PluginError),
        ("zero-shot", {}, ConfigError),
        ("zero-shot", {"fact": "label"}, ConfigError),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_encoded(
    name, options, error, mine, world, tmp_path
):
    part = {"name": name.format(mine=mine), "options": options}
    with pytest.raises(error):
        align(TOYS, world, out=tmp_path / "r", **HOW, evaluators=[part])
    assert not (tmp_path / "r").exists()


def test_what_an_evaluator_may_use_has_one_list():
    assert set(PARTS) == set(USES["evaluator"])


def test_two_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="twice"):
        evaluators_of([Part("geometry", {"bins": 3}), Part("geometry")])


def test_zero_shot_takes_its_classes_from_a_fact(world, tmp_path):
    part = {"name": "zero-shot", "options": {"fact": "kind", "resamples": 10}}
    data = {"source": str(world), "facts": {"kind": "thing"}}
    done = align(TOYS, data, out=tmp_path / "r", **HOW, evaluators=[part])
    assert "failed" not in done.results
    found = done.results["test"]["zero-shot"]
    assert found["items"] == 6 and "house" in found["classes"]
    assert "Zero-shot classification" in page(done)
    assert "confusion" not in done.model.metrics["zero-shot"]


def test_a_recipe_brings_evaluators_and_the_config_is_kept(mine, world, tmp_path):
    name = f"{mine}:Spread"
    recipe = {"name": "fusemix", "evaluators": [name]}
    how = {**HOW, "recipe": recipe}
    done = align(TOYS, world, out=tmp_path / "r", **how)
    assert done.results["test"]["Spread"]["pairs"] == 6
    values = {"encoders": {"image": "a", "text": "b"}, "data": {"source": ["x"]}, "recipe": recipe}
    with pytest.raises(UnknownNameError):
        build_config({**values, "recipe": {"name": "fusemix", "evaluators": ["nothing"]}})
    assert Recipe("x", Part("cca")).evaluators is None


def test_extending_measures_by_the_same_evaluators(mine, tmp_path):
    world = write_world(tmp_path / "w", sounds=True)
    columns = {"image": "image", "text": "text"}
    align(TOYS, {"source": str(world), "columns": columns}, out=tmp_path / "a", **HOW)
    own = {"image": ToyImage.spec, "text": ToyText.spec}
    done = extend(
        load_model(tmp_path / "a", "cpu", own),
        {"audio": ToySound},
        str(world),
        out=tmp_path / "b",
        evaluators=[f"{mine}:Spread"],
        **{**HOW, "recipe": "auto", "overrides": []},
    )
    assert set(done.results["test"]["Spread"]["spread"]) == {"image", "text", "audio"}
    assert "Spread" in done.model.metrics["extended with audio"]
