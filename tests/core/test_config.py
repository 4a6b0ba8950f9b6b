import tomllib

import pytest
import tomli_w

from fusemix_core.config import (
    DataConfig,
    Part,
    Recipe,
    RunConfig,
    Training,
    from_dict,
    parse_assignment,
    read_toml,
    to_dict,
)
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.overrides import in_order, override_recipe

RECIPE = Recipe(
    name="r",
    aligner=Part("gradient"),
    adapter=Part("mlp", {"blocks": 4}),
    training=Training(epochs=3),
)


def test_config_survives_toml():
    config = RunConfig(
        encoders={"image": "x", "text": "y"},
        data=DataConfig(source=("a.csv",), columns={"text": "alt"}),
        recipe=RECIPE,
        views={"text": "layers"},
        seed=3,
    )
    table = tomllib.loads(tomli_w.dumps(to_dict(config)))
    assert from_dict(RunConfig, table) == config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=3", (["a", "b"], 3)),
        ("a=0.5", (["a"], 0.5)),
        ("a=true", (["a"], True)),
        ("a=word", (["a"], "word")),
        ("a=none", (["a"], None)),
        ("a=[1, 2]", (["a"], [1, 2])),
    ],
)
def test_assignments_are_read_as_toml(text, expected):
    assert parse_assignment(text) == expected


def test_override_reaches_options_of_what_a_part_wraps():
    settings = ["objective=structure", "objective.objective=klot", "objective.options.weight=2.0"]
    deep = "objective.options.options.queue=64"
    changed = override_recipe(RECIPE, [*settings, deep]).objective
    assert changed.options == {
        "objective": "klot", "options": {"weight": 2.0, "options": {"queue": 64}}
    }  # fmt: skip


def test_override_reaches_numbers_parts_and_options():
    changed = override_recipe(
        RECIPE, ["dim=64", "training.epochs=7", "adapter.blocks=1", "mixup=none"]
    )
    assert changed.dim == 64
    assert changed.training.epochs == 7
    assert changed.adapter == Part("mlp", {"blocks": 1})
    assert changed.mixup is None
    assert RECIPE.training.epochs == 3


def test_override_names_a_part_with_its_options():
    changed = override_recipe(RECIPE, ["adapter=wide hidden=64", "adapters.text=mlp blocks=2"])
    assert changed.adapter == Part("wide", {"hidden": 64})
    assert changed.adapters == {"text": Part("mlp", {"blocks": 2})}


def test_override_that_renames_a_part_drops_its_options():
    assert override_recipe(RECIPE, ["adapter=linear"]).adapter == Part("linear")


@pytest.mark.parametrize(
    ("assignment", "error", "says"),
    [
        ("trainng.epochs=3", UnknownNameError, "training"),
        ("training.epoch=3", UnknownNameError, "training.epochs"),
        ("training.epochs=three", ConfigError, "not of type int"),
        ("training.schedule=linear", ConfigError, "epoch-cosine"),
        ("epochs", ConfigError, "KEY=VALUE"),
        ("name=x", UnknownNameError, "setting"),
        ("dim.x=3", ConfigError, "no settings"),
        ("adapter.a.b=3", ConfigError, "too deep"),
        ("dim=" + "[" * 5000, ConfigError, "not of type int"),
        ("dim=" + "9" * 5000, ConfigError, "not of type int"),
        ("adapter=3|adapter.blocks=1", ConfigError, "no settings inside"),
        ("adapters=3|adapters.text.blocks=1", ConfigError, "no settings inside"),
        ("views={text=3}", ConfigError, "views"),
        ("adapter=wide hidden", ConfigError, "KEY=VALUE"),
    ],
)
def test_wrong_override_says_what_is_wrong(assignment, error, says):
    with pytest.raises(error) as caught:
        override_recipe(RECIPE, assignment.split("|"))
    assert says in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("options", "name"),
    [("adapter.blocks=1", "adapter=wide"), ("adapters.text.blocks=1", "adapters.text=wide")],
)
def test_options_before_the_name_they_belong_to_are_refused(options, name):
    assert in_order([name, options]) == [name, options]
    with pytest.raises(ConfigError, match=f"'{name}' would undo '{options}'") as caught:
        in_order([options, "dim=3", name])
    assert f"--set {name} --set {options}" in caught.value.hint


@pytest.mark.parametrize(
    "content",
    [b"a = " + b"[" * 5000, b"a = " + b"9" * 5000, b"\xff", b"a", b"#" * (5 << 20)],
    ids=["deep", "long number", "not UTF-8", "no TOML", "large"],
)
def test_a_toml_file_that_is_none_is_named(tmp_path, content):
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(ConfigError, match="a.toml can't be read as TOML"):
        read_toml(tmp_path / "a.toml")


def test_a_part_switched_off_and_on_again_has_options():
    changed = override_recipe(RECIPE, ["adapter=none", "adapter.name=mlp", "adapter.blocks=2"])
    assert changed.adapter == Part("mlp", {"blocks": 2})


@pytest.mark.parametrize("name", ["encoders", "views"])
def test_tables_of_names_hold_names(name):
    values = {"encoders": {}, "data": {}, "recipe": to_dict(RECIPE), name: {"text": 3}}
    with pytest.raises(ConfigError, match=name):
        from_dict(RunConfig, values)


def test_missing_and_unknown_keys_are_named():
    with pytest.raises(ConfigError, match="aligner is missing"):
        from_dict(Recipe, {"name": "r"})
    with pytest.raises(UnknownNameError, match="sead"):
        from_dict(RunConfig, {"encoders": {}, "data": {}, "recipe": to_dict(RECIPE), "sead": 1})
