"""What a recipe's parts declare is enough to refuse it: before torch is imported."""

import pytest
from pairs import write_world
from refused import refused

from fusemix_core.config import Part, Recipe, Training
from fusemix_core.errors import ConfigError, PluginError
from fusemix_core.needs import check_needs, trusts_all
from fusemix_core.registry import registry
from fusemix_core.specs import ComponentSpec

WRONG = [
    (["--fixed", "text", "--recipe", "csa"], "moves every modality"),
    (["--fixed", "text", "--set", "aligner=best-layers", "--set", "aligner.aligner=csa"],
     "moves every modality"),
    (["--recipe", "fusemix", "--set", "training.unpaired=5"], "uses no unpaired items"),
    (["--recipe", "fusemix", "--set", "objective=structure", "--set", "training.unpaired=5"],
     "uses no unpaired items"),
    (["--recipe", "fusemix", "--set", "objective=token-infonce"],
     "image adapter 'mlp' has none"),
    (["--recipe", "fusemix", "--set", "objective=structure", "--set",
      "objective.objective=hamer"], "no objective named 'hamer'"),
]  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("needs")
    data = write_world(folder / "w", count=40)
    args = ["align", "--a", "efficientnet-lite0", "--b", "minilm", "--data", data]
    return refused([*args, "--out", folder / "r"], [options for options, _ in WRONG])


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_what_can_not_work_is_said_before_torch_is_imported(options, said, outcomes):
    outcomes[tuple(options)].check(said)


def test_what_a_wrapped_part_uses_the_outer_one_uses():
    klot = Part("structure", {"objective": "klot", "options": {"objective": "hammer"}})
    recipe = Recipe("r", Part("gradient"), adapter=Part("linear"), objective=klot,
                    training=Training(unpaired=5))  # fmt: skip
    check_needs(recipe, ["image", "text"])
    assert trusts_all(recipe)
    assert registry.uses("aligner", Part("best-layers")) == ("fixed",)
    assert registry.uses("aligner", Part("best-layers", {"aligner": "csa"})) == ()
    with pytest.raises(ConfigError, match="moves every modality"):
        check_needs(Recipe("r", Part("gradient"), start=Part("csa")), ["image"], ["image"])


def test_a_spec_declares_only_what_there_is():
    with pytest.raises(PluginError, match="can't use 'trust'"):
        ComponentSpec(kind="aligner", name="x", target="a:B", uses=("trust",))
    with pytest.raises(PluginError, match="wraps 'objective'"):
        ComponentSpec(kind="objective", name="x", target="a:B", options={"objective": "infonce"},
                      wraps="objective")  # fmt: skip
