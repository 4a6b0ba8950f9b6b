"""`--dtype auto`: half precision on a CUDA device where latents agree, float32 anywhere else.

The encoders stay on the CPU here, whatever device they are told.
"""

import json

import pytest
import torch

from fusemix_core.errors import ConfigError, DataError
from fusemix_core.latents import half
from fusemix_core.latents.fingerprint import fingerprint


@pytest.fixture
def rounding(toy, monkeypatch):
    """`rounding(float16=…, bfloat16=…)`: a spec whose encoder adds so much noise in a type; an
    error is raised when it is loaded in that."""

    class Rounding(toy.ToyEncoder):
        noise = {}
        loads = []

        @classmethod
        def load(cls, spec, device, dtype):
            name = str(dtype).removeprefix("torch.")
            cls.loads.append(name)
            if isinstance(cls.noise.get(name), Exception):
                raise cls.noise[name]
            encoder = cls(spec)
            encoder.added = cls.noise.get(name, 0.0)
            return encoder

        def encode(self, batch, view="pooled"):
            found = super().encode(batch, view)
            if view == "tokens":
                return found
            draw = torch.Generator().manual_seed(0)
            scale = found.norm(dim=-1, keepdim=True) * found.shape[-1] ** -0.5
            return found + self.added * scale * torch.randn(found.shape, generator=draw)

    Rounding.__module__, Rounding.__qualname__ = toy.__name__, "Rounding"
    monkeypatch.setattr(toy, "Rounding", Rounding, raising=False)
    monkeypatch.setattr(half, "has_bfloat16", lambda device: True)

    def made(sha256="ab" * 32, **noise):
        Rounding.noise, Rounding.loads = noise, []
        return toy.spec(Rounding, sha256=sha256), Rounding.loads

    return made


def run(toy, spec, store, start=0, **how):
    how = {"device": "cuda", **how}
    return toy.extracted(spec, toy.ToyItems(toy.texts(30, start)), store, batch_size=8, **how)


def test_the_half_type_that_agrees_is_taken_and_said(toy, store, rounding):
    spec, loads = rounding(float16=0.005)
    done = run(toy, spec, store)
    assert done.dtype == "float16" and loads == ["float32", "float16"]
    assert done.fingerprint == fingerprint(spec, "float16") != fingerprint(spec, "float32")
    (note,) = done.warnings
    assert (
        note.startswith("toy computes in float16: its latents agree") and "(cosine 0.9999" in note
    )


def test_the_choice_stands_for_all_data_from_then_on(toy, store, rounding):
    spec, loads = rounding(float16=1e-4)
    first = run(toy, spec, store)
    loads.clear()
    again, other = run(toy, spec, store), run(toy, spec, store, start=100)
    assert loads == ["float16"]  # for the other items; nothing is compared again
    assert again.encoded == 0 and again.warnings == [] == other.warnings
    assert first.fingerprint == again.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    ("noise", "dtype", "loads"),
    [
        ({"float16": 0.02, "bfloat16": 0.02}, "bfloat16", ["float32", "float16", "bfloat16"]),
        ({"float16": float("inf"), "bfloat16": 0.01}, "bfloat16", None),
        ({"float16": float("nan"), "bfloat16": 0.3}, "float32", None),
        ({"float16": ConfigError("no"), "bfloat16": ConfigError("no")}, "float32", None),
    ],
)
def test_one_that_disagrees_is_not_taken(toy, store, rounding, noise, dtype, loads):
    spec, seen = rounding(**noise)
    done = run(toy, spec, store)
    assert done.dtype == dtype and done.fingerprint == fingerprint(spec, dtype)
    assert loads is None or seen == loads
    (note,) = done.warnings
    assert note.startswith(f"toy computes in {dtype}: ")
    assert run(toy, spec, store, start=50).dtype == dtype


def test_a_gpu_without_bfloat16_is_not_asked_for_it(toy, store, rounding, monkeypatch):
    monkeypatch.setattr(half, "has_bfloat16", lambda device: False)
    spec, loads = rounding(float16=0.3)
    assert run(toy, spec, store).dtype == "float32"
    assert loads == ["float32", "float16", "float32"]


def test_on_a_cpu_nothing_is_compared_and_fingerprints_are_as_they_were(toy, store, rounding):
    spec, loads = rounding()
    done = run(toy, spec, store, device="cpu")
    assert (done.dtype, loads, done.warnings) == ("float32", ["float32"], [])
    assert done.fingerprint == fingerprint(spec, "float32")
    assert not (store.folder.parent / half.CHOICES).exists()


def test_a_type_that_is_asked_for_is_taken(toy, store, rounding):
    spec, loads = rounding(float16=0.3)
    assert run(toy, spec, store, dtype="float16").dtype == "float16" and loads == ["float16"]


def test_an_encoder_that_was_given_is_taken_as_it_is(toy, store, rounding):
    spec, loads = rounding(float16=1e-4)
    done = run(toy, spec, store, encoder=toy.ToyEncoder(spec))
    assert (done.dtype, loads, done.warnings) == ("float32", [], [])


def test_an_encoder_that_only_its_weights_tell(toy, store, rounding):
    spec, loads = rounding(sha256="", float16=1e-4)
    first = run(toy, spec, store)
    assert first.dtype == "float16" and first.digest and loads == ["float32", "float16"]
    again = run(toy, spec, store)
    assert again.encoded == 0 and again.fingerprint == first.fingerprint and not again.warnings


def test_items_that_cant_be_read_are_passed_over(toy, store, rounding):
    spec, _ = rounding(float16=1e-4)
    values = [toy.damaged(i) for i in range(20)] + toy.texts(10)
    done = toy.extracted(spec, toy.ToyItems(values), store, device="cuda", batch_size=8)
    assert done.dtype == "float16" and len(done.bad) == 20
    with pytest.raises(DataError, match="None of the 3"):
        nothing = toy.ToyItems([toy.damaged(i) for i in range(3)])
        toy.extracted(toy.spec(name="other"), nothing, store, device="cuda")


def test_choices_that_cant_be_read_or_written_cost_a_comparison(toy, store, rounding, monkeypatch):
    spec, loads = rounding(float16=1e-4)
    home = store.folder.parent
    home.mkdir(parents=True, exist_ok=True)
    for text in ("{", "[]", json.dumps({f"{fingerprint(spec, 'float32')} pooled": "int8"})):
        (home / half.CHOICES).write_text(text)
        loads.clear()
        run(toy, spec, store)
        assert loads[:2] == ["float32", "float16"]
    assert half.recall(home, fingerprint(spec, "float32"), "pooled") == "float16"


def test_views_are_chosen_for_by_themselves(toy, store, rounding):
    spec, _ = rounding(float16=0.3)
    assert run(toy, spec, store, view="pooled").dtype != "float16"
    assert run(toy, spec, store, view="tokens").dtype == "float16"
