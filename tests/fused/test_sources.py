"""Which encoder a fused model loads: fingerprints, and names that a saved model may not decide."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch

from fusemix_core.errors import (
    ArtefactError,
    ConfigError,
    MissingDependencyError,
    UnknownNameError,
)
from fusemix_core.fused import EncoderInfo, FusedModel
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.specs import EncoderSpec, FamilySpec


def test_an_encoder_with_other_weights_is_refused(toys):
    model = toys.model()
    other = dataclasses.replace(toys.specs["text"], options={"seed": 99})
    toys.add(other)
    with pytest.raises(ArtefactError) as error:
        model.encode("text", ["a"])
    message = str(error.value)
    assert "'toy-text'" in message and model.encoders["text"].fingerprint in message
    found = toys.Toy(other, torch.float32).weights_digest
    assert fingerprint(other, "float32", found) in message
    assert "from_pretrained('path/to/model', encoders={'text': 'NAME@PATH'})" in message


def test_a_model_of_before_images_were_decoded_otherwise_serves(toys, items):
    spec = toys.specs["image"]
    digest = toys.Toy(spec, torch.float32).weights_digest
    before = fingerprint(spec, "float32", digest, decoding=1)
    assert before != fingerprint(spec, "float32", digest)
    model = toys.model()
    expected = model.encode("image", items["image"])
    infos = {**model.encoders, "image": toys.info("image", fingerprint=before)}
    adapters = {m: model.adapters[m] for m in infos}
    model = FusedModel(adapters, infos, model.scorer, registry=toys.registry, device="cpu")
    torch.testing.assert_close(model.encode("image", items["image"]), expected)


def test_a_fingerprint_that_metadata_tells_is_checked_before_loading(toys):
    known = dataclasses.replace(toys.specs["text"], sha256="a" * 64)
    toys.add(dataclasses.replace(known, sha256="b" * 64))
    toys.specs["text"] = known
    with pytest.raises(ArtefactError, match="not the one"):
        toys.model().encode("text", ["a"])
    assert toys.Toy.loads == 0


def test_the_dtype_of_the_fit_is_the_dtype_of_use(toys):
    toys.specs["text"] = dataclasses.replace(toys.specs["text"], sha256="a" * 64)
    toys.add(toys.specs["text"])
    infos = {
        "image": toys.info("image"),
        "text": toys.info(
            "text", dtype="bfloat16", fingerprint=fingerprint(toys.specs["text"], "bfloat16")
        ),
    }
    adapters = {m: toys.ToyAdapter(toys.dims[m], 4) for m in infos}
    model = FusedModel(adapters, infos, toys.csls(), registry=toys.registry, device="cpu")
    model.encode("text", ["a cat"])
    assert model.encoder("text").load().net.weight.dtype == torch.bfloat16


def test_an_encoder_object_is_used_if_it_is_the_one_of_the_fit(toys, items):
    expected = toys.model().encode("text", items["text"])
    same = toys.Toy(toys.specs["text"], torch.float32)
    model = toys.model(sources={"text": same})
    assert torch.equal(model.encode("text", items["text"]), expected)
    assert toys.Toy.loads == 1
    other = toys.Toy(dataclasses.replace(toys.specs["text"], options={"seed": 9}), torch.float32)
    with pytest.raises(ArtefactError, match="not the one"):
        toys.model(sources={"text": other}).encode("text", ["a"])


def test_a_name_or_a_spec_may_be_given(toys, items):
    expected = toys.model().encode("text", items["text"])
    twin = dataclasses.replace(toys.specs["text"], name="twin")
    toys.add(twin)
    for source in ("twin", twin):
        model = toys.model(sources={"text": source})
        assert torch.equal(model.encode("text", items["text"]), expected)


def test_the_lazy_encoder_tells_its_spec_and_checks_a_fingerprint(toys):
    model = toys.model()
    lazy = model.encoder("text")
    assert lazy.spec == toys.specs["text"] and lazy.given is None and toys.Toy.loads == 0
    lazy.check(model.encoders["text"].fingerprint)
    with pytest.raises(ArtefactError, match="'text': 'NAME@PATH'"):
        lazy.check("0" * 32)
    assert lazy.load() is lazy.given is lazy.load()
    with pytest.raises(UnknownNameError):
        model.encoder("audio")


def test_a_given_name_that_is_unknown_is_refused_at_once(toys):
    with pytest.raises(UnknownNameError, match="toy-txet"):
        toys.model(sources={"text": "toy-txet"})
    with pytest.raises(ConfigError, match="not an encoder"):
        toys.model(sources={"text": 3})


def _model_with_text_encoder(toys, **changes) -> FusedModel:
    infos = {
        "image": toys.info("image"),
        "text": dataclasses.replace(toys.info("text"), **changes),
    }
    adapters = {m: toys.ToyAdapter(toys.dims[m], 4) for m in infos}
    return FusedModel(adapters, infos, toys.csls(), registry=toys.registry, device="cpu")


def _fetch(name, modality, path):
    raise AssertionError(f"a saved model made us fetch {name}")


@pytest.mark.parametrize("name", ["family:resnet50", "toy-text@weights.pth", "evil.py:Evil"])
def test_nothing_is_fetched_or_run_because_a_saved_model_says_so(toys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    (tmp_path / "weights.pth").write_bytes(b"")
    toys.registry.add(FamilySpec(prefix="family", resolve=f"{_fetch.__module__}:_fetch"))
    monkeypatch.setitem(sys.modules, _fetch.__module__, sys.modules[__name__])
    _model_with_text_encoder(toys, name=name).save_pretrained(tmp_path / "model")
    model = FusedModel.from_pretrained(tmp_path / "model", registry=toys.registry, device="cpu")
    assert model.embed("text", torch.ones(1, 7)).shape == (1, 4)  # what needs no encoder works
    with pytest.raises(ArtefactError) as error:
        model.encode("text", ["a"])
    given = {
        "toy-text@weights.pth": "toy-text@/path/to/weights.pth",
        "evil.py:Evil": "./evil.py:Evil",
    }
    line = (
        f"from_pretrained('{tmp_path / 'model'}', encoders={{'text': '{given.get(name, name)}'}})"
    )
    assert line in error.value.hint


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/bin/sh", "~/x", "evil.py", "EVIL.PY", "https://x.org/a", "a/b/c"]
)
def test_a_path_for_a_name_is_only_unknown(toys, name):
    with pytest.raises((ArtefactError, UnknownNameError)):
        _model_with_text_encoder(toys, name=name).encode("text", ["a"])


def test_a_missing_plugin_is_named(toys):
    model = _model_with_text_encoder(toys, name="absent", dist="fusemix-absent")
    with pytest.raises(UnknownNameError) as error:
        model.encode("text", ["a"])
    assert "'fusemix-absent'" in error.value.hint


def test_a_missing_package_is_named(toys):
    spec = dataclasses.replace(toys.specs["text"], requires={"no_such_module": "no-such>=1"})
    toys.add(spec)
    with pytest.raises(MissingDependencyError, match="no-such>=1"):
        toys.model().encode("text", ["a"])


def test_folders_of_local_files_stay_out_of_the_model(toys):
    def name(given: str) -> EncoderInfo:
        spec = EncoderSpec(
            name=given, modality="text", target="a:B", dim=7, weights="/home/me/w.pth", local=True
        )
        facts = {"modality": "text", "dim": 7, "fingerprint": "f", "view": "pooled"}
        return EncoderInfo.of(spec, **facts, registry=toys.registry)

    assert name("toy-text@/home/me/w.pth").name == "toy-text@w.pth"
    assert name("/home/me/enc.py:Mine").name == "enc.py:Mine"
    assert name("./enc.py:Mine").weights == ""
    assert not name("./enc.py:Mine").registered


def test_the_distribution_of_an_encoder_is_recorded(toys):
    class Point:
        name, value, dist = "p", "p", type("D", (), {"name": "fusemix-p", "version": "1"})

        def load(self):
            spec = EncoderSpec(name="p", modality="text", target="none:Toy", dim=7, sha256="c")
            family = FamilySpec(prefix="fam", resolve="none:none")
            return type("M", (), {"fusemix_encoders": staticmethod(lambda: [spec, family])})

    from fusemix_core.registry import Registry

    registry = Registry(entry_points=lambda: [Point()])
    facts = {"modality": "text", "dim": 7, "fingerprint": "f", "view": "pooled"}
    facts["registry"] = registry
    assert EncoderInfo.of(registry.encoder("p"), **facts).dist == "fusemix-p"
    other = dataclasses.replace(registry.encoder("p"), name="fam:x")
    assert EncoderInfo.of(other, **facts).dist == "fusemix-p"
    other = dataclasses.replace(registry.encoder("p"), name="unknown")
    assert EncoderInfo.of(other, **facts).dist == ""
