"""Corrections in a fused model: fitted by a run, saved, extended and used by a generator."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from field import Field
from pairs import write_world
from torch.nn.functional import normalize
from toys import ToyImage, ToySound, ToyText

from fusemix_core import FusedModel, align, extend, load_generator
from fusemix_core.corrections.bank import BankCorrection
from fusemix_core.corrections.plain import NormCorrection
from fusemix_core.errors import ArtefactError, ConfigError

ENCODERS = {"image": ToyImage, "text": ToyText}
SPECS = {"image": ToyImage.spec, "text": ToyText.spec, "audio": ToySound.spec}
QUICK = {"recipe": "ridge", "device": "cpu", "baselines": []}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = write_world(folder / "w", count=120, sounds=True)
    align(ENCODERS, data, fixed="text", out=folder / "r", **QUICK)
    return folder


def load(folder, modalities=("image", "text")):
    return FusedModel.from_pretrained(folder / "model", encoders={m: SPECS[m] for m in modalities})


def pixels(image):
    return np.asarray(image).tobytes()


def rows_of(model, run, count=6):
    return model.encode("image", [run / f"w/{i}.png" for i in range(count)])


def test_a_run_with_a_fixed_modality_keeps_corrections_and_what_it_chose(run):
    model = load(run / "r")
    assert set(model.corrections) == {"norm", "shift", "bank", "auto"}
    found = json.loads((run / "r/results.json").read_text())["corrections"]["text"]["image"]
    assert model.corrections["auto"].choice("image", "text", None) == found["chosen"]
    assert {"cosine", "close", "r1", "length", "gap"} <= set(found["shift"])
    raw = model.latents("text", ["a red car", "a blue bird"])
    length = model.corrections["norm"].learnt["image", "text"]["length"]
    assert float(length) == pytest.approx(float(raw.norm(dim=1).mean()), rel=0.5)


def test_a_run_without_one_keeps_none(run):
    done = align(ENCODERS, run / "w", out=run / "free", **QUICK)
    assert not done.model.corrections and "corrections" not in done.results
    with pytest.raises(ConfigError, match="none is fixed"):
        align(ENCODERS, run / "w", corrections=[{"name": "prior"}], out=run / "x", **QUICK)


def test_a_private_run_keeps_no_training_items(run):
    done = align(ENCODERS, run / "w", fixed="text", private=True, out=run / "p", **QUICK)
    assert set(done.model.corrections) == {"norm", "shift", "auto"}
    draw = load_generator("field", device="cpu")
    with pytest.raises(ConfigError) as refused:
        draw.from_embeddings(
            rows_of(done.model, run), model=done.model, modality="image", correct="bank"
        )
    assert "private" in refused.value.hint and "norm, shift" in refused.value.message


def test_a_bank_of_the_generator_serves_a_private_model(run):
    class Knows(Field):
        def bank(self):
            rows = ToyText.load(ToyText.spec, None, None)
            return rows.encode(rows.collate(["a red car", "a blue bird"]))

    done = align(ENCODERS, run / "w", fixed="text", private=True, out=run / "p2", **QUICK)
    generator = Knows()
    draw = load_generator(generator, device="cpu")
    rows = rows_of(done.model, run)
    chosen = done.model.corrections["auto"].choice("image", "text", generator.bank())
    how = {"model": done.model, "modality": "image", "noise": 0.0}
    names = ("bank", "auto", chosen)
    drawn = {name: draw.from_embeddings(rows, correct=name, **how) for name in names}
    assert list(map(pixels, drawn["auto"])) == list(map(pixels, drawn[chosen]))
    conditions = BankCorrection()(rows, "image", "text", range(len(rows)), generator.bank())
    expected = draw.from_embeddings(normalize(conditions, dim=1), noise=0.0)
    assert list(map(pixels, drawn["bank"])) == list(map(pixels, expected))


def test_a_prior_is_fitted_if_asked_for(run):
    part = {"name": "prior", "options": {"steps": 2, "hidden": 8}}
    align(ENCODERS, run / "w", fixed="text", corrections=[part], out=run / "prior", **QUICK)
    model = load(run / "prior")
    draw = load_generator("field", device="cpu")
    given = {"model": model, "modality": "image", "correct": "prior", "noise": 0.0}
    one, other = (
        draw.from_embeddings(rows_of(model, run, 1), seeds=[seed], **given)[0] for seed in (1, 2)
    )
    assert np.asarray(one).tobytes() != np.asarray(other).tobytes()


def test_an_extended_model_keeps_its_corrections_and_learns_those_of_the_new_modality(run):
    base = load(run / "r")
    done = extend(
        run / "r", {"audio": ToySound, **ENCODERS}, run / "w", out=run / "e",
        recipe="ridge", device="cpu", baselines=[],
    )  # fmt: skip
    shift = done.model.corrections["shift"]
    assert shift.knows("audio", "text")
    kept = base.corrections["shift"].learnt["image", "text"]["gap"]
    assert torch.equal(shift.learnt["image", "text"]["gap"], kept)
    assert done.model.corrections["auto"].choice("audio", "text", None)


def test_each_correction_reaches_the_generator(run):
    model, draw = load(run / "r"), load_generator("field", device="cpu")
    rows = rows_of(model, run)
    drawn = {
        how: [
            np.asarray(image).tobytes()
            for image in draw.from_embeddings(
                rows, model=model, modality="image", correct=how, noise=0.0
            )
        ]
        for how in ("none", "norm", "shift", "bank", "auto")
    }
    assert drawn["none"] == drawn["norm"]  # the toy is conditioned by vectors of length 1
    assert len({tuple(images) for images in drawn.values()}) >= 3
    assert drawn["auto"] == drawn[model.corrections["auto"].choice("image", "text", None)]


def test_raw_latents_get_back_their_length(run):
    class Raw(Field):
        seen = []

        def generate(self, condition, **more):
            self.seen.append(condition)
            return super().generate(condition, **more)

    generator = Raw()
    generator.spec = replace(Field.spec, norm="raw")
    model, draw = load(run / "r"), load_generator(generator, device="cpu")
    draw.from_embeddings(rows_of(model, run), model=model, modality="image", correct="norm")
    draw(model, {"text": "a red car"})
    length = model.corrections["norm"].learnt["image", "text"]["length"]
    assert Raw.seen[0].norm(dim=1) == pytest.approx(float(length))
    assert torch.equal(Raw.seen[1], model.latents("text", ["a red car"]))


def test_a_model_without_corrections_says_so(run, fused):
    model, notes = fused("text", "image"), []
    draw = load_generator("field", device="cpu")
    draw.from_embeddings(rows_of(model, run), model=model, modality="image", note=notes.append)
    assert "fit it again" in notes[0]


def test_corrections_that_do_not_fit_the_model_are_refused(fused):
    model, wrong = fused(), NormCorrection()
    wrong.learnt["audio", "smell"] = {"length": torch.tensor(1.0)}
    with pytest.raises(ArtefactError, match="smell"):
        model.corrections = {"norm": wrong}
    wrong.learnt = {("audio", "text"): {"length": torch.tensor(torch.inf)}}
    with pytest.raises(ArtefactError, match="finite"):
        model.corrections = {"norm": wrong}
