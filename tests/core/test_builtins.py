"""What fusemix registers is what is there: targets load, options equal the signatures."""

import dataclasses
import inspect

import pytest

from fusemix_core.builtins import fusemix_components
from fusemix_core.config import Recipe, from_dict, to_dict
from fusemix_core.registry import registry
from fusemix_core.saved.model import SavedModel
from fusemix_core.specs import load_target

COMPONENTS = fusemix_components()


@pytest.mark.parametrize(
    "spec", [s for s in COMPONENTS if s.kind != "artefact"], ids=lambda s: f"{s.kind}-{s.name}"
)
def test_declared_options_are_the_constructors(spec):
    parameters = inspect.signature(load_target(spec.target)).parameters.values()
    options = {p.name: p.default for p in parameters if p.default is not p.empty}
    assert dict(spec.options) == options


@pytest.mark.parametrize(
    "spec", [s for s in COMPONENTS if s.kind == "artefact"], ids=lambda s: s.name
)
def test_artefacts_are_saved_models_of_that_kind(spec):
    found = load_target(spec.target)
    assert issubclass(found, SavedModel) and found.kind == spec.name
    assert not spec.options  # a saved model is loaded, not built from options


@pytest.mark.parametrize(
    "spec", [s for s in COMPONENTS if s.kind == "recipe"], ids=lambda s: s.name
)
def test_recipes_name_registered_parts_and_survive_their_table(spec):
    recipe = load_target(spec.target)()
    assert recipe.name == spec.name
    assert from_dict(Recipe, to_dict(recipe)) == recipe
    for field in dataclasses.fields(Recipe):
        kind = "aligner" if field.name == "start" else field.name
        part = getattr(recipe, field.name)
        if dataclasses.is_dataclass(part) and hasattr(part, "options"):
            registry.check(kind, part)
