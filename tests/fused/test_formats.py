"""Models of format 1 load as before, and models of other kinds load as what they are.

`format1/` was written by `format1/make.py` with the code of commit 45244df, the last of format 1:
a model with the toy encoders of `tests/toys.py`, and what that code gave for some inputs.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from toys import ToyImage, ToyText

import fusemix_core
from fusemix_core.config import Part
from fusemix_core.errors import ArtefactError, PluginError, UnknownNameError
from fusemix_core.fused import FusedModel
from fusemix_core.registry import Registry, registry
from fusemix_core.saved.components import Built
from fusemix_core.saved.model import SavedModel
from fusemix_core.specs import ComponentSpec

OLD = Path(__file__).parent / "format1"
TEXTS = ["a cat", "two dogs at the sea", "a red hat", "snow"]


# -- format 1 -------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path) -> Path:
    shutil.copytree(OLD / "model", tmp_path / "old")
    return tmp_path / "old"


def _load(folder) -> FusedModel:
    sources = {"image": ToyImage(ToyImage.spec), "text": ToyText(ToyText.spec)}
    return fusemix_core.load(folder, encoders=sources, device="cpu")


def _gives_what_it_gave(model) -> None:
    expected = load_file(OLD / "expected.safetensors")
    rows = {m: model.embed(m, expected[f"latents.{m}"]) for m in ("image", "text")}
    for m in rows:
        assert torch.equal(rows[m], expected[f"embeddings.{m}"])
    for a, b in (("text", "image"), ("image", "text")):
        assert torch.equal(model.similarity(rows[a], rows[b], a, b), expected[f"scores.{a}.{b}"])
    pixels = np.random.default_rng(0)
    images = [Image.fromarray(pixels.integers(0, 255, (8, 9, 3), dtype=np.uint8)) for _ in range(3)]
    assert torch.equal(model.encode("image", images), expected["encoded.image"])
    assert torch.equal(model.encode("text", TEXTS), expected["encoded.text"])


def test_a_model_of_format_1_gives_the_same_bit_for_bit(old):
    model = _load(old)
    assert type(model) is FusedModel and model.modalities == ("image", "text") and model.dim == 8
    assert model.recipe == {"name": "fusemix", "dim": 8}
    assert model.metrics == {"retrieval": {"mean_recall": 12.5}}
    assert model.scorer_part == Part("csls", {"neighbours": 2, "bank_size": 16})
    assert dict(model.adapter_part("text").options) == {"landmarks": 4}
    _gives_what_it_gave(model)


def test_a_model_of_format_1_is_saved_in_format_2(old, tmp_path):
    _load(old).save_pretrained(tmp_path / "new")
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert (config["format"], config["kind"], config["dist"]) == (2, "fused", "fusemix")
    assert config["parts"]["adapter.text"]["arguments"] == [12, 8]
    _gives_what_it_gave(_load(tmp_path / "new"))
    weights = [(p / "model.safetensors").read_bytes() for p in (old, tmp_path / "new")]
    assert (
        load_file(old / "model.safetensors").keys()
        == load_file(tmp_path / "new" / "model.safetensors").keys()
    )
    assert len(weights[0]) == len(weights[1])


def _edit(folder: Path, *path: str, value) -> None:
    config = json.loads((folder / "config.json").read_text())
    table = config
    for key in path[:-1]:
        table = table[key]
    table[path[-1]] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("novelty",), 1),
        (("modalities", "text", "novelty"), 1),
        (("modalities", "text", "encoder", "novelty"), 1),
        (("modalities", "text", "adapter", "arguments"), [12, 8]),
        (("scorer", "novelty"), 1),
        (("kind",), "fused"),
        (("format",), 0),
        (("dim",), 9),
        (("dim",), 0),
        (("dim",), 10**18),
        (("modalities", "text", "encoder", "dim"), 13),
        (("modalities", "text", "encoder", "modality"), "image"),
        (("modalities", "text", "adapter", "name"), "toy\x1b[31m"),
        (("modalities", "text", "adapter", "options"), {"landmarks": 5}),
        (("modalities", "a.b"), {}),
        (("scorer", "tensors"), {}),
        (("weights_sha256",), "0" * 64),
    ],
)
def test_format_1_is_read_as_strictly_as_before(old, path, value):
    _edit(old, *path, value=value)
    with pytest.raises((ArtefactError, UnknownNameError)) as error:
        _load(old)
    assert "\x1b" not in str(error.value)


def test_a_modality_less_is_refused_in_format_1(old):
    config = json.loads((old / "config.json").read_text())
    del config["modalities"]["text"]
    (old / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtefactError):
        _load(old)


# -- other kinds ----------------------------------------------------------------------------------


class Lengths(SavedModel):
    """One encoder, no scorer, embeddings that keep their length: what a plugin may bring."""

    kind = "lengths"

    @classmethod
    def from_parts(cls, encoders, parts, **more):
        if set(parts) != {f"adapter.{m}" for m in encoders}:
            raise ArtefactError("Lengths has an adapter of each encoder, and nothing else.")
        return cls(encoders, parts, **more)

    def lengths(self, latents):
        with torch.no_grad():
            return self.parts["adapter.text"].component(latents)


@pytest.fixture
def lengths(toys) -> Lengths:
    toys.registry.add_component("artefact", "lengths", Lengths)
    toys.registry.add_component("artefact", "fused", FusedModel)
    torch.manual_seed(4)
    adapter = Built(toys.ToyAdapter(7, 3), (7, 3))
    return Lengths({"text": toys.info("text")}, {"adapter.text": adapter}, device="cpu",
                   data={"texts": 5}, registry=toys.registry)  # fmt: skip


def test_load_gives_the_class_of_the_kind(toys, lengths, tmp_path):
    lengths.save_pretrained(tmp_path / "lengths")
    toys.model().save_pretrained(tmp_path / "fused")
    found = fusemix_core.load(tmp_path / "lengths", registry=toys.registry, device="cpu")
    assert type(found) is Lengths and found.data == {"texts": 5}
    assert type(fusemix_core.load(tmp_path / "fused", registry=toys.registry)) is FusedModel
    rows = torch.randn(3, 7)
    assert torch.equal(found.lengths(rows), lengths.lengths(rows))
    assert not torch.allclose(found.lengths(rows).norm(dim=1), torch.ones(3))


def test_another_kind_is_saved_as_it_was_loaded(toys, lengths, tmp_path):
    lengths.save_pretrained(tmp_path / "a", name="m")
    found = Lengths.from_pretrained(tmp_path / "a", registry=toys.registry, device="cpu")
    found.save_pretrained(tmp_path / "b", name="m")
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads((tmp_path / "a" / "config.json").read_text())["kind"] == "lengths"
    card = (tmp_path / "a" / "README.md").read_text()
    assert "load('m')" in card and "`lengths`" in card


def test_a_class_refuses_a_model_of_another_kind(toys, lengths, tmp_path):
    lengths.save_pretrained(tmp_path / "lengths")
    with pytest.raises(ArtefactError, match="kind 'lengths', not of 'fused'") as error:
        FusedModel.from_pretrained(tmp_path / "lengths", registry=toys.registry)
    assert "fusemix_core.load(" in error.value.hint
    toys.model().save_pretrained(tmp_path / "fused")
    with pytest.raises(ArtefactError, match="kind 'fused'"):
        Lengths.from_pretrained(tmp_path / "fused", registry=toys.registry)


def test_the_kind_decides_which_parts_there_are(toys, lengths, tmp_path):
    lengths.save_pretrained(tmp_path / "lengths")
    _edit(tmp_path / "lengths", "kind", value="fused")
    with pytest.raises(ArtefactError, match="adapter of each, and a scorer"):
        fusemix_core.load(tmp_path / "lengths", registry=toys.registry)
    toys.model().save_pretrained(tmp_path / "fused")
    _edit(tmp_path / "fused", "kind", value="lengths")
    with pytest.raises(ArtefactError, match="nothing else"):
        fusemix_core.load(tmp_path / "fused", registry=toys.registry)


@pytest.mark.parametrize("kind", ["os:system", "tests.evil:Model", "../evil", "fusd"])
def test_an_unknown_kind_is_refused_by_name(toys, lengths, tmp_path, kind):
    lengths.save_pretrained(tmp_path / "m")
    _edit(tmp_path / "m", "kind", value=kind)
    _edit(tmp_path / "m", "dist", value="fusemix-other")
    with pytest.raises(UnknownNameError) as error:
        fusemix_core.load(tmp_path / "m", registry=toys.registry)
    assert kind in error.value.message and "'fusemix-other'" in error.value.hint


def test_a_kind_that_is_no_saved_model_is_the_plugins_fault(toys, lengths, tmp_path):
    lengths.save_pretrained(tmp_path / "m")
    toys.registry.add_component("artefact", "lengths", dict)
    with pytest.raises(PluginError, match="not a subclass of SavedModel"):
        fusemix_core.load(tmp_path / "m", registry=toys.registry)


def test_a_plugin_brings_a_kind(toys, lengths, tmp_path):
    spec = ComponentSpec(kind="artefact", name="lengths", target=f"{__name__}:Lengths")

    class Point:
        name, value = "p", "p"
        dist = type("D", (), {"name": "fusemix-p", "version": "1"})

        def load(self):
            return type("M", (), {"fusemix_components": staticmethod(lambda: [spec])})

    found = Registry(entry_points=lambda: [Point()])
    found.add_component("adapter", "toy", toys.ToyAdapter, hidden=6, power=1.0)
    adapter = Built(toys.ToyAdapter(7, 3), (7, 3))
    model = Lengths({"text": toys.info("text")}, {"adapter.text": adapter}, registry=found)
    model.save_pretrained(tmp_path / "m")
    assert json.loads((tmp_path / "m" / "config.json").read_text())["dist"] == "fusemix-p"
    assert type(fusemix_core.load(tmp_path / "m", registry=found)) is Lengths


def test_fused_is_a_built_in_kind():
    assert registry.target_of(registry.component("artefact", "fused")) is FusedModel


# -- modes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_all_files_of_a_model_get_the_mode_that_the_umask_gives(toys, tmp_path, umask):
    before = os.umask(umask)
    try:
        toys.model().save_pretrained(tmp_path / "model")
        toys.model().save_pretrained(tmp_path / "model")
    finally:
        os.umask(before)
    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "model").iterdir()}
    assert modes == dict.fromkeys(("README.md", "config.json", "model.safetensors"), 0o666 & ~umask)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o777 & ~umask
