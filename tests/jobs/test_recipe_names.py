"""The names of recipes: one source for what a listing says, and those of former versions."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import tomli_w
import torch
from pairs import write_world
from toys import ToyImage, ToyText

from fusemix_core import FusedModel, align
from fusemix_core.aligners.scale import scale_for
from fusemix_core.config import Part, read_toml, to_dict
from fusemix_core.registry import registry
from fusemix_core.runs.config import find_recipe

ENCODERS = {"image": ToyImage, "text": ToyText}


def test_a_listing_says_of_each_recipe_what_the_recipe_says():
    listed = registry.all_components("recipe")
    assert len(listed) > 10
    for dist, spec in listed:
        recipe = registry.recipe(f"{dist}/{spec.name}")()
        assert (spec.name, spec.summary) == (recipe.name, recipe.summary)
        assert spec.summary
        assert spec.paper.rpartition("/")[2] == recipe.paper.rpartition(":")[2], spec.name


def test_listing_recipes_imports_nothing_heavy():
    code = (
        "import sys\nfrom fusemix_core.registry import registry\n"
        "assert len(registry.all_components('recipe')) > 10\n"
        "print({'torch', 'numpy', 'transformers', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_closed_forms_are_those_that_auto_chooses_from():
    linear, kernel, auto = (find_recipe(name) for name in ("cca", "kcca", "auto"))
    assert linear.aligner == Part("cca", {"landmarks": 0})
    options = registry.check("aligner", auto.aligner).options
    on_a_cpu = scale_for(torch.device("cpu"), 2).landmarks
    assert options["landmarks"] is None  # as suits the device
    assert kernel.aligner == Part("cca", {"landmarks": on_a_cpu})
    theirs = registry.component("aligner", "cca").options
    shared = options.keys() & theirs.keys() - {"landmarks"}
    assert len(shared) == 5 and all(options[name] == theirs[name] for name in shared)
    assert linear.views == kernel.views == auto.views


@pytest.mark.parametrize("name", ["fusemix", "fusemix-paper"])
def test_fusemix_is_the_method_as_published(name):
    recipe = find_recipe(name)
    assert recipe.name == "fusemix"
    assert recipe.objective.name == "infonce" and recipe.training.epochs == 500


FORMER_DEFAULT = {
    "name": "fusemix",
    "aligner": {"name": "cca", "options": {}},
    "summary": "what it said then",
    "paper": "",
    "views": {"text": "layers-middle-last"},
}


def test_a_recorded_former_default_stays_a_closed_form():
    recipe = find_recipe(FORMER_DEFAULT)
    assert (recipe.name, recipe.aligner) == ("auto", Part("cca"))
    assert recipe.views == FORMER_DEFAULT["views"]


def test_a_recorded_former_paper_recipe_is_fusemix():
    recorded = {**to_dict(find_recipe("fusemix")), "name": "fusemix-paper"}
    assert find_recipe(recorded) == find_recipe("fusemix")


@pytest.mark.parametrize("now, then", [("auto", "fusemix"), ("fusemix", "fusemix-paper")])
def test_runs_and_models_with_former_names_are_resumed_and_loaded(tmp_path, now, then):
    data, out = write_world(tmp_path / "w"), tmp_path / "r"
    small = ["aligner=cca"] if now == "auto" else ["training.epochs=2", "adapter.blocks=1", "dim=8"]
    how = {"out": out, "recipe": now, "overrides": small, "device": "cpu"}
    first = align(ENCODERS, data, **how)
    recorded = read_toml(out / "config.toml")
    recorded["recipe"] |= {"name": then, "summary": "what it said then"}
    (out / "config.toml").write_text(tomli_w.dumps(recorded))
    model = json.loads((out / "model/config.json").read_text())
    model["recipe"]["name"] = then
    (out / "model/config.json").write_text(json.dumps(model))
    assert FusedModel.from_pretrained(out / "model").recipe["name"] == then
    again = align(ENCODERS, data, resume=True, **how)
    assert again.results["test"] == first.results["test"]
    assert read_toml(out / "config.toml")["recipe"]["name"] == now


def test_a_run_repeats_what_its_recipe_was_without(tmp_path):
    """Parts set to none, and options that were cleared, are not those of the named recipe again."""
    data, out = write_world(tmp_path / "w"), tmp_path / "r"
    small = ["training.epochs=1", "adapter.blocks=1", "dim=8"]
    cleared = ["mixup=none", "objective={name = 'infonce', options = {}}"]
    how = {"out": out, "recipe": "fusemix", "device": "cpu"}
    first = align(ENCODERS, data, overrides=[*small, *cleared], **how)
    recorded = read_toml(out / "config.toml")["recipe"]
    assert find_recipe(recorded) == find_recipe("fusemix", [*small, *cleared])
    again = align(ENCODERS, data, **{**how, "recipe": recorded}, resume=True)
    assert again.results["test"] == first.results["test"]
