"""A method in one file: components and recipe, by the command line."""

import json

import pytest
from pairs import write_world
from typer.testing import CliRunner

from fusemix_core.cli.app import app
from fusemix_core.config import Recipe
from fusemix_core.errors import ConfigError, PluginError
from fusemix_core.runs.config import find_recipe

METHOD = """
import torch

from fusemix_core import Adapter
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.registry import registry


class Halved(Adapter):
    def __init__(self, dim_in, dim_out, *, share=0.5):
        super().__init__()
        self.out = torch.nn.Linear(dim_in, dim_out)
        self.share = share

    def forward(self, latents):
        return self.out(latents) * self.share


registry.add_component("adapter", "halved-in-a-file", Halved, share=0.5)


def mine():
    return Recipe(
        name="mine",
        aligner=Part("gradient"),
        dim=8,
        adapter=Part("halved-in-a-file", {"share": 0.25}),
        objective=Part("infonce"),
        training=Training(epochs=2, batch_size=16),
    )


def no_recipe():
    return {"name": "mine"}
"""


@pytest.fixture
def method(tmp_path):
    path = tmp_path / "my_method.py"
    path.write_text(METHOD)
    return f"{path}:mine"


def test_a_recipe_of_a_file_with_overrides(method):
    recipe = find_recipe(method, ["dim=4"])
    assert isinstance(recipe, Recipe) and (recipe.name, recipe.dim) == ("mine", 4)
    assert find_recipe({"name": method, "dim": 6}).dim == 6


def test_align_and_bench_take_it(method, tmp_path, request):
    toys = request.config.rootpath / "tests/toys.py"
    data = write_world(tmp_path / "w", count=80)
    common = ["--a", f"{toys}:ToyImage", "--b", f"{toys}:ToyText", "--data", str(data)]

    def run(*arguments):
        done = CliRunner().invoke(app, [*arguments, *common])
        assert done.exit_code == 0, done.output
        return done.stdout

    out = tmp_path / "run"
    run("align", "--recipe", method, "--out", str(out))
    saved = json.loads((out / "model/config.json").read_text())
    assert saved["parts"]["adapter.image"]["name"] == "halved-in-a-file"
    arguments = ["--methods", f"auto,{method}", "--seeds", "1", "--out", str(tmp_path / "b")]
    lines = json.loads(run("bench", *arguments, "--json"))["fits"]
    assert [line["method"] for line in lines] == ["auto", "mine"]
    assert not any("error" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("{}:absent", ConfigError, "no function 'absent'"),
        ("{}:no_recipe", ConfigError, "returns a Recipe"),
        ("{}x.py:mine", ConfigError, "does not exist"),
        ("{}", ConfigError, "names nothing"),
    ],
)
def test_faults(method, name, error, says):
    with pytest.raises(error, match=says):
        find_recipe(name.format(method.rpartition(":")[0]))


def test_a_file_that_fails_says_so(tmp_path):
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        find_recipe(f"{tmp_path / 'bad.py'}:mine")
