"""Generators are found, listed and loaded as encoders are."""

import json
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from field import Field

from fusemix_core import hub, load_generator
from fusemix_core.digests import path_sha256
from fusemix_core.errors import (
    ArtefactError,
    ConfigError,
    MissingDependencyError,
    PluginError,
    UnknownNameError,
)
from fusemix_core.packaged import packaged_weights
from fusemix_core.registry import Registry, registry
from fusemix_core.specs import FamilySpec, GeneratorSpec

FILE = Path(__file__).parents[1] / "field.py"


def plugin(name, specs):
    module = SimpleNamespace(fusemix_generators=lambda: specs)
    dist = SimpleNamespace(name=f"fusemix-{name}", version="1")
    return SimpleNamespace(name=name, dist=dist, value=name, load=lambda: module)


def found_in(*plugins):
    return Registry(entry_points=lambda: plugins)


def resolve(name, makes, path):
    return replace(Field.spec, name=f"fam:{name}", makes=makes or "image", summary=str(path))


def test_one_of_a_plugin_is_found_by_name_alias_and_distribution():
    spec = replace(Field.spec, aliases=("meadow",))
    one, two = plugin("a", [spec]), plugin("b", [spec])
    assert found_in(one).generator("MEADOW") is spec
    with pytest.raises(PluginError, match="fusemix-a and fusemix-b"):
        found_in(one, two).generator("field")
    assert found_in(one, two).generator("fusemix-a/field") is spec
    assert found_in(one).plugins == []  # nothing is loaded before it is asked for


def test_a_family_opens_a_hub_of_generators():
    family = FamilySpec(prefix="fam", resolve=f"{__name__}:resolve")
    known = found_in(plugin("a", [family, Field.spec]))
    assert known.generator("fam:x").name == "fam:x"
    local = known.generator(f"fam:x@{FILE}")
    assert local.local and local.weights == str(FILE) and local.summary == str(FILE)
    assert [spec for _, spec in known.all_generators()] == [Field.spec, family]
    with pytest.raises(UnknownNameError, match="encoder"):
        known.encoder("fam:x")


def test_a_plugin_that_gives_something_else_is_broken_and_says_so():
    known = found_in(plugin("a", ["field"]))
    with pytest.raises(UnknownNameError, match="field"):
        known.generator("field")
    assert "fusemix_generators gave 'field'" in known.plugins[0].error


def test_what_the_user_adds_wins_and_a_file_brings_its_generators(own_registry):
    spec = replace(Field.spec, summary="mine")
    registry.add(spec)
    assert registry.generator("field").summary == "mine"
    registry.load_file(FILE)
    assert registry.target_of(registry.generator("field")).__name__ == "Field"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"condition": "words"}, "unknown condition 'words'"),
        ({"norm": "long"}, "unknown norm 'long'"),
        ({"space": ""}, "which encoder's latents"),
    ],
)
def test_a_spec_that_says_nothing_known_is_refused(changes, says):
    with pytest.raises(PluginError, match=says):
        replace(Field.spec, **changes)


def test_a_missing_package_gives_the_pip_line():
    registry.add(replace(Field.spec, requires={"no_such_pkg": "nsp>=2"}))
    with pytest.raises(MissingDependencyError) as refused:
        load_generator("field")
    assert refused.value.hint == "pip install 'nsp>=2'"


def test_a_target_that_is_not_a_generator_is_refused():
    spec = replace(Field.spec, name="path", target="pathlib:Path")
    with pytest.raises(PluginError, match="not a subclass of Generator"):
        load_generator(spec)


def test_without_a_network_the_error_names_generators_that_need_no_hub(monkeypatch):
    class Far(Field):
        spec = replace(Field.spec, name="far", weights="someone/model")

        @classmethod
        def load(cls, spec, device, dtype):
            raise ArtefactError("The files can't be had.")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(socket, "create_connection", _no_connection)
    hub.connected.cache_clear()
    registry.add(Far)
    registry.add(replace(Field.spec, name="near", weights="pkg/file", sha256="ab"))
    with pytest.raises(ArtefactError, match="no connection") as refused:
        load_generator("far")
    hub.connected.cache_clear()
    assert "Generators that need no hub: " in refused.value.hint and "near" in refused.value.hint
    assert "far@FOLDER" in refused.value.hint


def _no_connection(*_, **__):
    raise OSError("no such name")


def test_a_folder_of_weights_in_a_package_is_checked(tmp_path, monkeypatch):
    folder = tmp_path / "weights_of_field" / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet/w.safetensors").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    spec = replace(Field.spec, weights="weights_of_field/model", sha256=path_sha256(folder))
    assert packaged_weights(spec) == folder
    assert hub.weights_of(spec) == ("here", None)
    (folder / "unet/w.safetensors").write_bytes(b"others")
    with pytest.raises(ArtefactError, match="not the folder that was tested"):
        packaged_weights(spec)


def test_dtype_and_device_reach_the_generator():
    class Typed(Field):
        @classmethod
        def load(cls, spec, device, dtype):
            made = cls()
            made.where = device, dtype
            return made

    registry.add(type("Typed", (Typed,), {"spec": replace(Field.spec, name="typed")}))
    made = load_generator("typed", device="cpu", dtype="float16").generator
    assert made.where == (torch.device("cpu"), torch.float16)


def test_listing_generators_imports_no_torch():
    code = (
        "import sys; from fusemix_core.cli import main\n"
        "sys.argv = ['fusemix', 'generators', 'list', '--json']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)


def test_a_spec_is_plain_data():
    assert isinstance(hash(replace(Field.spec, requires=(), options=())), int)
    with pytest.raises(ConfigError, match="does not exist"):
        registry.generator("field@/no/such/folder")
    assert GeneratorSpec(name="g", target="x:y", condition="guidance").space == ""
