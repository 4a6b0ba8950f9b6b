"""An objective that reads a fact, from the command line: plans, refusals, runs, kills."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import started
from pairs import write_world
from typer.testing import CliRunner

from fusemix_core.cli.app import app

TOYS = Path(__file__).parents[1] / "toys.py"
BY_NAME = ["--a", f"{TOYS}:ToyImage", "--b", f"{TOYS}:ToyText"]
METHOD = """
import os
import signal

from torch.nn.functional import normalize

from fusemix_core.config import Part, Recipe, Training
from fusemix_core.interfaces import Objective
from fusemix_core.registry import registry


class SameClass(Objective):
    uses = ("facts",)

    def __init__(self, *, fact="thing"):
        super().__init__()
        self.fact = fact

    def forward(self, step):
        if step.number == int(os.environ.get("DIE_AT", -1)):
            os.kill(os.getpid(), signal.SIGKILL)
        first, second = (normalize(x, dim=1) for x in step.embeddings.values())
        label = step.facts[self.fact][:, 0]
        same = (label[:, None] == label) & (label >= 0)
        chance = (10 * first @ second.T).log_softmax(dim=1)
        return -(chance * same).sum() / same.sum()


registry.add_component("objective", "same-class", SameClass, fact="thing")


def by_class():
    return Recipe(
        name="by-class",
        aligner=Part("gradient"),
        dim=8,
        adapter=Part("linear"),
        objective=Part("same-class"),
        training=Training(epochs=4, batch_size=16),
    )
"""
LABEL = ["--fact", "thing=thing:class"]
CLI = ("-m", "fusemix_core.cli")


@pytest.fixture
def method(tmp_path, monkeypatch):
    """The arguments of `fusemix align` for the recipe by-class on pairs.csv, but for facts."""
    (tmp_path / "by_class.py").write_text(METHOD)
    data = write_world(tmp_path / "w", count=60)
    monkeypatch.chdir(tmp_path)
    tests = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")]))
    recipe = ["--recipe", f"{tmp_path}/by_class.py:by_class", "--device", "cpu"]
    return ["align", *BY_NAME, "--data", str(data), *recipe]


def run(*args, code=0):
    done = CliRunner().invoke(app, list(map(str, args)))
    assert done.exit_code == code, done.output
    return done


def tensors(out):
    return (Path(out) / "model/model.safetensors").read_bytes()


def test_a_plan_and_the_results_list_facts(method):
    plan = json.loads(run(*method, *LABEL, "--dry-run", "--json").stdout)
    listed = {"thing": {"column": "thing", "kind": "class", "missing": 0, "classes": 8}}
    assert plan["facts"] == listed and plan["warnings"] == []
    assert "thing (class, 8 classes)" in run(*method, *LABEL, "--dry-run").stdout
    run(*method, *LABEL, "--out", "r")
    assert json.loads(Path("r/results.json").read_text())["facts"] == listed


def test_the_loss_depends_on_the_fact(method):
    run(*method, *LABEL, "--out", "a")
    run(*method, *LABEL, "--out", "b")
    run(*method, "--fact", "thing=image:class", "--out", "c")
    assert tensors("a") == tensors("b") != tensors("c")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "The objective 'same-class' uses facts of the rows, and none is given."),
        (["--fact", "think=thing"], "Did you mean 'think'?"),
        ([*LABEL, "--set", "objective.fact=think"], "Did you mean 'thing'?"),
        (["--fact", "thing"], "--fact thing: expected NAME=COLUMN."),
        (["--fact", "thing=think"], "Did you mean --fact thing=thing?"),
        ([*LABEL, *LABEL], "--fact names 'thing' twice."),
        ([*LABEL, "--trust-column", "sure"], "there is no column 'sure' (--trust-column sure)"),
    ],
)
def test_what_can_not_work_is_refused_by_the_plan(options, said, method):
    assert said in " ".join(run(*method, *options, "--dry-run", code=2).output.split())


def test_a_fact_that_is_not_there_is_refused_before_torch(method, tmp_path):
    script = (
        "import sys\n"
        "from fusemix_core.runs.config import find_recipe\n"
        "from fusemix_core.runs.facts import check_facts\n"
        "from fusemix_core.config import Part, Recipe\n"
        "from fusemix_core.registry import registry\n"
        "from fusemix_core.specs import ComponentSpec\n"
        "registry.add(ComponentSpec(kind='objective', name='o', target='o:O', uses=('facts',)))\n"
        "try:\n"
        "    check_facts(Recipe(name='r', aligner=Part('gradient'), objective=Part('o')), {})\n"
        "except Exception as error:\n"
        "    print(error, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "and none is given" in done.stdout and done.stdout.endswith(" False\n"), done


def test_a_fact_that_nobody_uses_is_noted(method):
    method[method.index("--recipe") + 1] = "kcca"
    plan = json.loads(run(*method, *LABEL, "--dry-run", "--json").stdout)
    assert [w for w in plan["warnings"] if "Nothing in the recipe kcca uses facts (thing)" in w]


@pytest.mark.slow
def test_killed_and_resumed_is_never_killed(method):
    run(*method, *LABEL, "--out", "whole")
    died = started.run(*CLI, *method, *LABEL, "--out", "killed", env={**os.environ, "DIE_AT": "7"})
    assert died.returncode == -9, died.stderr
    assert list(Path("killed/checkpoints").iterdir()) and not Path("killed/model").exists()
    assert "[data.facts]" in Path("killed/config.toml").read_text()
    run(*method, *LABEL, "--out", "killed", "--resume")
    assert tensors("killed") == tensors("whole")


def test_other_facts_are_no_resumption(method):
    started.run(*CLI, *method, *LABEL, "--out", "killed", env={**os.environ, "DIE_AT": "7"})
    given = [*method, "--fact", "thing=text:class", "--out", "killed", "--resume"]
    assert "facts" in run(*given, code=2).output
    data = Path("w/pairs.csv")
    data.write_text(data.read_text().replace(",house", ",mouse").replace(",bird", ",house"))
    assert "changed since" in run(*method, *LABEL, "--out", "killed", "--resume", code=2).output


def test_a_manifest_of_chosen_pairs_is_fitted_on_as_it_says(method):
    where = ["--data", "w/pairs.csv", *BY_NAME, *LABEL, "--device", "cpu"]
    done = run("select", *where, "--selector", "uniform", "--pairs", "40", "--out", "w/few.csv")
    said = " ".join(done.output.split())
    assert said.endswith("--data w/few.csv --fact thing=thing:class"), said
    method[method.index("--data") + 1] = "w/few.csv"
    run(*method, *LABEL, "--out", "few")
    assert json.loads(Path("few/results.json").read_text())["facts"]["thing"]["kind"] == "class"
