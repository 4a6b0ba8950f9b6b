import types
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from fusemix_core.cli.plugins_app import add_plugin_commands
from fusemix_core.config import Part
from fusemix_core.errors import (
    ConfigError,
    MissingDependencyError,
    PluginError,
    UnknownNameError,
)
from fusemix_core.registry import Registry
from fusemix_core.specs import ComponentSpec, EncoderSpec, FamilySpec


@dataclass
class Point:
    """An entry point that needs no installed distribution."""

    name: str
    dist: Any
    load: Any
    value: str = "module"


def plugin(name, encoders=(), components=(), fail=None):
    module = types.ModuleType(name)
    module.fusemix_encoders = lambda: encoders
    module.fusemix_components = lambda: components

    def load():
        if fail:
            raise fail
        return module

    return Point(name, SimpleNamespace(name=f"dist-{name}", version="1"), load)


def spec(name="enc", **kwargs):
    return EncoderSpec(name=name, modality="image", target="nowhere:Nothing", **kwargs)


def registry(*points):
    return Registry(lambda: points)


def resolve_family(name, modality, path):
    return spec(f"fam:{name}")


def test_encoder_is_found_by_name_alias_and_any_case():
    r = registry(plugin("a", [spec("enc", aliases=("e",))]))
    assert r.encoder("enc") is r.encoder("E")


def test_unknown_name_gets_the_nearest():
    r = registry(plugin("a", [spec("efficientnet-lite0"), spec("minilm")]))
    with pytest.raises(UnknownNameError) as caught:
        r.encoder("eficientnet-lite")
    assert "efficientnet-lite0" in caught.value.hint


@pytest.mark.parametrize("fail", [ImportError("no module"), SystemExit(3), SyntaxError("bad")])
def test_broken_plugin_is_a_row_and_is_named_when_a_name_is_missing(fail):
    r = registry(plugin("bad", fail=fail), plugin("good", [spec()]))
    assert r.encoder("enc").name == "enc"
    bad, good = r.plugins
    assert bad.error and not good.error
    with pytest.raises(UnknownNameError, match="dist-bad"):
        r.encoder("other")


def test_plugin_that_declares_nonsense_registers_nothing_of_it():
    r = registry(plugin("bad", [spec("kept"), "not a spec"]), plugin("good", [spec()]))
    assert [s.name for _, s in r.all_encoders()] == ["enc"]
    assert "not a spec" in r.plugins[0].error


def test_duplicate_name_is_an_error_at_look_up_and_dist_settles_it():
    r = registry(plugin("a", [spec(dim=1)]), plugin("b", [spec(dim=2)]))
    with pytest.raises(PluginError) as caught:
        r.encoder("enc")
    assert "dist-a" in str(caught.value) and "dist-b/enc" in str(caught.value)
    assert r.encoder("dist-b/enc").dim == 2
    assert len(r.all_encoders()) == 2


def test_what_the_user_adds_wins():
    r = registry(plugin("a", [spec(dim=1)]))
    r.add(spec(dim=9))
    assert r.encoder("enc").dim == 9


def test_family_opens_a_hub():
    family = FamilySpec(prefix="fam", resolve=f"{__name__}:resolve_family")
    r = registry(plugin("a", [family]))
    assert r.encoder("fam:xyz").name == "fam:xyz"
    with pytest.raises(UnknownNameError, match="fam:"):
        r.encoder("famm:xyz")


def test_family_that_misses_a_package_gives_the_pip_line():
    family = FamilySpec(prefix="fam", resolve="x:y", requires={"no_such_pkg": "nsp>=2"})
    with pytest.raises(MissingDependencyError) as caught:
        registry(plugin("a", [family])).encoder("fam:xyz")
    assert caught.value.hint == "pip install 'nsp>=2'"


def test_weights_from_a_local_path(tmp_path):
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"x")
    r = registry(plugin("a", [spec(weights="hub/id", sha256="ab", revision="r")]))
    found = r.encoder(f"enc@{weights}")
    assert (found.weights, found.sha256, found.revision) == (str(weights), "", "")
    assert found.local
    with pytest.raises(ConfigError, match="does not exist"):
        r.encoder("enc@/no/such/file")


@pytest.mark.parametrize("name", ["x@~nobody-here/y", "x@" + "y" * 5000, "x@a\0b", "z" * 5000,
                                  "./" + "z" * 5000 + ".py:A", "./a\0.py:A"])  # fmt: skip
def test_names_of_any_length_or_character_are_config_errors(name):
    with pytest.raises(ConfigError) as error:
        Registry(entry_points=lambda: []).encoder(name)
    assert len(str(error.value)) < 1000


def test_encoder_class_in_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from fusemix_core.specs import EncoderSpec\n"
        "class Mine:\n"
        "    spec = EncoderSpec(name='mine', modality='molecule', target='', dim=3)\n"
    )
    r = registry()
    found = r.encoder(f"{file}:Mine")
    assert found.modality == "molecule" and found.takes == "text"
    assert r.target_of(found).__name__ == "Mine"
    with pytest.raises(ConfigError, match="no Encoder class 'Other'"):
        r.encoder(f"{file}:Other")
    with pytest.raises(ConfigError, match="does not exist"):
        r.encoder(f"{tmp_path}/none.py:Mine")


@pytest.mark.parametrize(
    ("text", "why"), [("1 / 0", "ZeroDivisionError"), ("exit('no licence')", "SystemExit: no lic")]
)
def test_file_that_fails_to_import_says_why(tmp_path, text, why):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(PluginError, match=why):
        registry().encoder(f"{file}:X")


def test_component_options_are_checked_before_anything_is_imported():
    component = ComponentSpec(
        kind="adapter", name="mlp", target="no.such:Thing", options={"blocks": 4, "bias": True}
    )
    r = registry(plugin("a", components=[component]))
    assert r.check("adapter", Part("mlp", {"blocks": 2})) is component
    with pytest.raises(UnknownNameError, match="blocks"):
        r.check("adapter", Part("mlp", {"block": 2}))
    with pytest.raises(ConfigError, match=r"like 4 \(int\)"):
        r.check("adapter", Part("mlp", {"blocks": "two"}))
    with pytest.raises(ConfigError, match=r"like 4 \(int\)"):
        r.check("adapter", Part("mlp", {"blocks": True}))


def test_build_constructs_with_the_options():
    r = registry()
    r.add_component("mixup", "pair", SimpleNamespace, a=1)
    assert r.build("mixup", Part("pair", {"a": 5}), b=2) == SimpleNamespace(a=5, b=2)


def test_unknown_kind_of_component_is_refused():
    with pytest.raises(PluginError, match="sampler"):
        ComponentSpec(kind="sampler", name="x", target="y:z")


def test_only_named_plugins_load(monkeypatch):
    monkeypatch.setenv("FUSEMIX_PLUGINS", "b")
    r = registry(plugin("a", [spec("x")]), plugin("b", [spec("y")]))
    assert [s.name for _, s in r.all_encoders()] == ["y"]


def test_a_command_that_fails_or_is_taken_is_noted_and_the_others_are_added():
    bad, good, thief = plugin("bad"), plugin("good"), plugin("thief")
    bad.load().fusemix_commands = lambda app: app.nothing
    good.load().fusemix_commands = lambda app: app.command("mine")(lambda: None)
    thief.load().fusemix_commands = lambda app: app.command("mine")(lambda: None)
    r, app = registry(bad, good, thief), typer.Typer()
    add_plugin_commands(app, r)
    assert [c.name for c in app.registered_commands] == ["mine"]
    assert [p.name for p in r.plugins if p.error] == ["bad", "thief"]
    assert "'mine'" in r.plugins[-1].error
    again = registry(good)
    add_plugin_commands(app, again)  # the same app a second time, as a test or a notebook does
    assert not again.plugins[0].error and len(app.registered_commands) == 1


def test_families_of_one_prefix_are_told_apart_by_their_distribution():
    family = FamilySpec(prefix="fam", resolve=f"{__name__}:resolve_family")
    r = registry(plugin("a", [family]), plugin("b", [family]))
    with pytest.raises(PluginError, match="dist-a and dist-b"):
        r.encoder("fam:x")
    assert r.encoder("dist-b/fam:x").name == "fam:x"
