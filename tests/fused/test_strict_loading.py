"""Damaged, foreign and malicious saved models: each refused by an error that says what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import contextmanager

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusemix_core.errors import (
    ArtefactError,
    FusemixError,
    MissingDependencyError,
    UnknownNameError,
)
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import Adapter
from fusemix_core.project import upgrade
from fusemix_core.specs import ComponentSpec


@pytest.fixture
def saved(toys, tmp_path):
    folder = tmp_path / "model"
    toys.model(scorer=toys.csls(), recipe={"name": "r"}).save_pretrained(folder)
    return folder


@pytest.fixture
def load(toys, saved):
    return lambda: FusedModel.from_pretrained(saved, registry=toys.registry, device="cpu")


@contextmanager
def edited(folder):
    """config.json as a dict, written back."""
    config = json.loads((folder / "config.json").read_text())
    yield config
    (folder / "config.json").write_text(json.dumps(config))


def _rewrite(folder, tensors):
    """Other tensors, with a digest that agrees, so that only names and forms can tell."""
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    with edited(folder) as config:
        config["weights_sha256"] = digest


# -- config.json ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"format"',
        b'{"format": "1"}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"format": true}',
        b'{"format": 2, "format": 2}',
        b'{"format": 2, "dim": NaN}',
        b'{"format": 2, "dim": 1e999}',
        b'{"format": 2' + b"0" * 5000 + b"}",
        b'{"format": 2, "fusemix": "\\ud800"}',
        b" " * (5 << 20),
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_config_that_is_not_one_is_refused(saved, load, content):
    (saved / "config.json").write_bytes(content)
    with pytest.raises(ArtefactError, match=r"config\.json"):
        load()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(saved, load, name):
    (saved / name).unlink()
    with pytest.raises(ArtefactError, match=f"{name} does not exist"):
        load()
    (saved / name).mkdir()
    with pytest.raises(ArtefactError, match=name):
        load()


def test_a_card_is_not_needed(saved, load):
    (saved / "README.md").unlink()
    assert load().dim == 4


def test_a_newer_format_says_to_upgrade(saved, load):
    with edited(saved) as config:
        config |= {"format": 4, "fusemix": "9.9", "novelty": 1}
    with pytest.raises(ArtefactError, match="format 4") as error:
        load()
    assert "9.9" in error.value.hint and upgrade() in error.value.hint


PATHS = {
    "top": (),
    "encoder": ("encoders", "text"),
    "adapter": ("parts", "adapter.text"),
    "scorer": ("parts", "scorer"),
}


@pytest.mark.parametrize("at", PATHS)
def test_an_unknown_key_anywhere_says_to_upgrade(saved, load, at):
    with edited(saved) as config:
        table = config
        for key in PATHS[at]:
            table = table[key]
        table["novelty"] = 1
    with pytest.raises(ArtefactError, match="novelty") as error:
        load()
    assert upgrade() in error.value.hint


def _paths(value, at=()):
    """Every place in a nested table."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*at, key)
            yield from _paths(item, (*at, key))


def _informative(path) -> bool:
    """Whether a place only informs, or has a default that may be the right value."""
    if path == ("parts", "scorer", "arguments"):
        return True
    return path[0] in ("recipe", "objective", "data", "metrics") or path[-1] in (
        "dtype", "takes", "dist", "licence", "weights", "revision", "options", "tensors",
        "hidden", "power", "neighbours", "bank_size", "seen",
    )  # fmt: skip


def test_every_key_of_substance_is_needed(saved, load):
    original = (saved / "config.json").read_text()
    places = [p for p in _paths(json.loads(original)) if not _informative(p)]
    assert len(places) > 20
    for path in places:
        with edited(saved) as config:
            table = config
            for key in path[:-1]:
                table = table[key]
            del table[path[-1]]
        with pytest.raises(ArtefactError):
            load()
        (saved / "config.json").write_text(original)


@pytest.mark.parametrize("seen", [{"image": 3}, {"image": -1}, {"image": True}, {"video": 0}])
def test_keys_of_training_items_are_as_many_as_is_said(saved, load, seen):
    with edited(saved) as config:
        config["seen"] = seen
    with pytest.raises(ArtefactError):
        load()


def test_every_value_has_its_type(saved, load):
    original = (saved / "config.json").read_text()
    for path in _paths(json.loads(original)):
        for wrong in ([], {"x": [1]}, True, 1.5, None, "x" * 9):
            with edited(saved) as config:
                table = config
                for key in path[:-1]:
                    table = table[key]
                if type(table[path[-1]]) is type(wrong):
                    continue
                if path[0] in ("recipe", "objective", "data", "metrics") and len(path) > 1:
                    continue
                if path[-1] == "power" and isinstance(wrong, float):
                    continue
                table[path[-1]] = wrong
            with pytest.raises(FusemixError):
                load()
            (saved / "config.json").write_text(original)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("parts", "adapter.text", "arguments"), [7, 5]),
        (("parts", "adapter.text", "arguments"), [7, 0]),
        (("parts", "adapter.text", "arguments"), [7, 10**18]),
        (("parts", "adapter.text", "arguments"), [7]),
        (("parts", "adapter.text", "arguments"), [7, 4, 6]),
        (("parts", "adapter.text", "arguments"), [7, "4"]),
        (("parts", "adapter.text", "tensors"), {"first.weight": "float32 [6, 7]"}),
        (("parts", "scorer", "arguments"), [1]),
        (("format",), 0),
        (("encoders", "text", "dim"), 8),
        (("encoders", "text", "dim"), -1),
        (("encoders", "text", "dim"), 10**30),
        (("encoders", "text", "modality"), "image"),
        (("encoders", "text", "name"), ""),
        (("encoders", "text", "name"), "toy\x1b[31m"),
        (("encoders", "text", "weights"), "\x1b]0;"),
        (("encoders", "text", "dtype"), "float8"),
        (("encoders", "text", "takes"), "pickle"),
        (("parts", "adapter.text", "options"), {"hidden": 7}),
        (("parts", "adapter.text", "options"), {"hidden": 10**12}),
        (("parts", "adapter.text", "options"), {"hidden": -3}),
        (("parts", "adapter.text", "options"), {"hiden": 6}),
        (("parts", "adapter.text", "options"), {"dim_in": 6}),
        (("parts", "adapter.text", "options"), {"hidden": "6"}),
        (("parts", "scorer", "options"), {"neighbours": 0}),
        (("parts", "scorer", "tensors"), {}),
        (("parts", "scorer", "name"), "cosine"),
        (("weights_sha256",), "0" * 64),
        (("encoders", "a.b"), {}),
        (("encoders", "x\x1b[2J"), {}),
        (("parts", "adapter.x\x1b[2J"), {"name": "toy"}),
        (("parts", "adapter.audio"), {"name": "toy", "arguments": [7, 4]}),
        (("parts", "novelty"), {"name": "toy"}),
        (("kind",), ""),
        (("kind",), "fused\x1b[2J"),
        (("encoders",), {}),
        (("parts",), {}),
    ],
)
def test_values_that_do_not_fit_are_refused(saved, load, path, value):
    with edited(saved) as config:
        table = config
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = value
    with pytest.raises(ArtefactError) as error:
        load()
    assert str(error.value).isprintable() or "\n" in str(error.value)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("name", ["os:system", "tests.evil:Adapter", "../evil", "mlp2", "toy/toy"])
def test_an_unknown_component_is_refused_by_name(saved, load, name):
    for path in (("parts", "adapter.text"), ("parts", "scorer")):
        with edited(saved) as config:
            table = config
            for key in path:
                table = table[key]
            old, table["name"], table["dist"] = table["name"], name, "fusemix-other"
        with pytest.raises(UnknownNameError) as error:
            load()
        assert name in error.value.message and "'fusemix-other'" in error.value.hint
        with edited(saved) as config:
            table = config
            for key in path:
                table = table[key]
            table["name"] = old


def test_a_component_whose_package_is_missing_says_what_to_install(toys, saved, load):
    toys.registry.add(
        ComponentSpec(kind="adapter", name="needy", target="a:B", requires={"no_such": "no-such>1"})
    )
    with edited(saved) as config:
        config["parts"]["adapter.text"] = {"name": "needy"}
    with pytest.raises(MissingDependencyError, match="no-such>1"):
        load()


# -- model.safetensors ----------------------------------------------------------------------------


def test_tensors_must_be_the_expected_ones(saved, load):
    tensors = safetensors.torch.load_file(saved / "model.safetensors")
    for name, tensor in tensors.items():
        cases = {
            f"{name} is missing": {k: v for k, v in tensors.items() if k != name},
            f"{name} is float": tensors | {name: torch.cat([tensor, tensor])},
            f"{name} is float64": tensors | {name: tensor.double()},
            f"{name}.extra is not expected": tensors | {f"{name}.extra": tensor},
        }
        for message, damaged in cases.items():
            _rewrite(saved, {k: v.clone() for k, v in damaged.items()})
            with pytest.raises(ArtefactError) as error:
                load()
            assert message in error.value.message
    _rewrite(saved, tensors)
    assert load().dim == 4


class Stack(Adapter):
    """Takes as many layers as it is told to."""

    def __init__(self, dim_in, dim_out, *, layers=1):
        super().__init__()
        self.options = {"layers": layers}
        self.layers = torch.nn.Sequential(*[torch.nn.Linear(dim_in, dim_in) for _ in range(layers)])
        self.out = torch.nn.Linear(dim_in, dim_out)

    def forward(self, latents):
        return self.out(self.layers(latents))


def test_a_number_of_layers_that_fills_the_memory_is_refused(toys, tmp_path):
    toys.registry.add_component("adapter", "stack", Stack, layers=1)
    model = toys.model()
    adapters = {m: Stack(d, 4) for m, d in toys.dims.items() if m in model.adapters}
    FusedModel(adapters, model.encoders, model.scorer, registry=toys.registry).save_pretrained(
        tmp_path / "m"
    )
    with edited(tmp_path / "m") as config:
        config["parts"]["adapter.image"]["options"] = {"layers": 10**12}
    with pytest.raises(ArtefactError, match="far more tensors"):
        FusedModel.from_pretrained(tmp_path / "m", registry=toys.registry, device="cpu")


def test_weights_must_be_finite(saved, load):
    tensors = safetensors.torch.load_file(saved / "model.safetensors")
    name = next(n for n in tensors if n.startswith("adapter."))
    for value in (torch.nan, torch.inf):
        _rewrite(saved, {**tensors, name: torch.full_like(tensors[name], value)})
        with pytest.raises(ArtefactError, match="not finite"):
            load()


def test_a_scorer_without_its_banks_is_refused_even_if_the_config_agrees(saved, load):
    tensors = safetensors.torch.load_file(saved / "model.safetensors")
    _rewrite(saved, {k: v.clone() for k, v in tensors.items() if k != "scorer.bank.text"})
    with edited(saved) as config:
        del config["parts"]["scorer"]["tensors"]["bank.text"]
    with pytest.raises(ArtefactError, match="text"):
        load()


def test_any_changed_byte_is_noticed(saved, load):
    path = saved / "model.safetensors"
    original = path.read_bytes()
    for position in range(0, len(original), 37):
        damaged = bytearray(original)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ArtefactError):
            load()
    for size in (0, 7, 8, 100, len(original) - 1):
        path.write_bytes(original[:size])
        with pytest.raises(ArtefactError):
            load()
    path.write_bytes(original + b"\0")
    with pytest.raises(ArtefactError):
        load()


def test_a_pickle_is_never_opened(saved, load):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch ran",)

    torch.save({"x": Evil()}, saved / "model.safetensors")
    with pytest.raises(ArtefactError):
        load()
    assert not (saved / "ran").exists()
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    with pytest.raises(ArtefactError, match="does not exist"):
        load()


def test_files_of_two_models_do_not_mix(toys, saved, load, tmp_path):
    other = toys.model(scorer=toys.csls())
    torch.nn.init.ones_(other.adapters["text"].first.weight)
    other.save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", saved)
    with pytest.raises(ArtefactError, match="SHA-256"):
        load()


# -- fuzz -----------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([2**31, 2**63, 10**30, -1])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["toy", "csls", "cosine", "user/toy", "image", "float16"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_whatever_stands_in_the_config_the_error_is_ours(saved, load, data):
    original = (saved / "config.json").read_text()
    config = json.loads(original)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(sorted(_paths(config))))
        table = config
        for key in path[:-1]:
            table = table[key]
        action = data.draw(st.sampled_from(["replace", "delete", "add"]))
        if action == "delete":
            del table[path[-1]]
        else:
            key = path[-1] if action == "replace" else data.draw(st.text(max_size=5))
            table[key] = data.draw(JSON)
    try:
        (saved / "config.json").write_text(json.dumps(config))
        load().embed("image", torch.ones(2, 5))
    except FusemixError as error:
        assert error.message
    finally:
        (saved / "config.json").write_text(original)
