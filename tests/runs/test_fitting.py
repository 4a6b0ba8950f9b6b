"""Encoders that learn from training items: on which items, and that what they learnt is kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import fusemix_core
from fusemix_core.data.reading import pairs_from
from fusemix_core.encoders.matrix import MatrixEncoder
from fusemix_core.errors import ArtefactError, ConfigError, ContractError, DataError
from fusemix_core.interfaces import Encoder
from fusemix_core.jobs.encode import encode
from fusemix_core.jobs.rank import rank
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import registry
from fusemix_core.runs.fitting import fit_encoders, learnt
from fusemix_core.saved.encoders import LazyEncoder
from fusemix_core.specs import EncoderSpec


class Words(Encoder):
    """How often each word of the training texts is in a text."""

    spec = EncoderSpec(
        name="toy-words",
        modality="text",
        target="test_fitting:Words",
        parameters=0,
        fitted=True,
        options={"skip": "", "learnt": None},
    )
    result = None

    def __init__(self, spec):
        self.words = list(spec.options["learnt"])
        self.spec = replace(spec, dim=len(self.words))

    @classmethod
    def load(cls, spec, device, dtype):
        return cls(spec)

    @classmethod
    def fit(cls, spec, items):
        words = sorted({word for item in items for word in item.split()} - {spec.options["skip"]})
        found = replace(spec, options={**spec.options, "learnt": words}, dim=len(words))
        return cls.result or found

    @classmethod
    def learnt(cls, spec):
        return [f"{len(spec.options['learnt'])} words"]

    def collate(self, items):
        return torch.tensor([[float(i.split().count(w)) for w in self.words] for i in items])

    def encode(self, batch, view="pooled"):
        return batch


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(Words, "result", None)
    registry.add(Words)


def texts(count, held=()):
    names = ["red", "blue", "green", "old", "new", "tall"]
    draw = np.random.default_rng(0)
    return [
        " ".join(draw.permutation(names)[: 2 + i % 3]) + (" secret" if i in held else "")
        for i in range(count)
    ]


def dataset(count=12, held=(10, 11)):
    split = ["test" if i in held else "train" for i in range(count)]
    values = {"text": texts(count, held), "other": [f"other {i}" for i in range(count)]}
    return pairs_from(values, {"text": "text", "other": "text"}, split=split)


def table(count=120):
    rows = np.random.default_rng(1).normal(size=(count, 6)).astype(np.float32)
    return rows, {"text": texts(count), "audio": [str(i) for i in range(count)]}


def test_only_training_items_are_learnt_from():
    specs = fit_encoders({"text": Words.spec}, dataset())
    assert "secret" not in specs["text"].options["learnt"]
    assert learnt(specs["text"]) == ("6 words",)
    whole = fit_encoders({"text": Words.spec}, dataset(), rows=np.arange(12))
    assert "secret" in whole["text"].options["learnt"]


def test_another_fit_is_another_encoder_to_the_store():
    known = {
        fingerprint(fit_encoders({"text": Words.spec}, dataset(), np.arange(n))["text"], "float32")
        for n in (1, 12)
    }
    assert len(known) == 2 and None not in known


def test_what_is_fitted_already_is_not_fitted_again():
    once = fit_encoders({"text": Words.spec}, dataset())
    assert fit_encoders(once, dataset(), np.arange(12)) == once


def test_a_training_split_without_items_is_an_error():
    with pytest.raises(DataError, match="No training row has a text"):
        fit_encoders({"text": Words.spec}, dataset(), rows=np.arange(0))


@pytest.mark.parametrize(
    "result",
    [
        Words.spec,
        replace(Words.spec, options={"skip": "", "learnt": [float("nan")]}),
        replace(Words.spec, options={"skip": "", "learnt": [object()]}),
        replace(Words.spec, options={"skip": "", "learnt": []}, name="another"),
    ],
    ids=["nothing", "not finite", "not plain", "another encoder"],
)
def test_a_fit_that_breaks_the_contract_is_refused(monkeypatch, result):
    monkeypatch.setattr(Words, "result", result)
    with pytest.raises(ContractError, match="toy-words"):
        fit_encoders({"text": Words.spec}, dataset())


def test_options_follow_the_name_of_a_fitted_encoder():
    spec = registry.encoder("toy-words skip=red")
    assert spec.name == "toy-words" and spec.options == {"skip": "red", "learnt": None}
    assert "red" not in fit_encoders({"text": spec}, dataset())["text"].options["learnt"]
    for wrong, why in {
        "toy-words skp=red": "skp",
        "toy-words learnt=[]": "learnt",
        "toy-words skip=3": "wants something like",
    }.items():
        with pytest.raises(ConfigError, match=why):
            registry.encoder(wrong)
    registry.add(replace(Words.spec, name="toy-plain", fitted=False))
    with pytest.raises(ConfigError, match="takes no options"):
        registry.encoder("toy-plain skip=red")


def test_a_model_keeps_what_its_encoder_learnt(tmp_path):
    rows, data = table()
    done = fusemix_core.align(
        {"text": "toy-words skip=red", "audio": rows}, data, out=tmp_path, recipe="cca"
    )
    assert done.results["pairs"]["train"] == 96
    fresh = fusemix_core.FusedModel.from_pretrained(tmp_path)
    info = fresh.encoders["text"]
    assert info.options["learnt"] == ["blue", "green", "new", "old", "tall"]
    assert info.name == "toy-words" and info.dim == 5
    asked = ["blue old", "a word of its own: red"]
    assert torch.equal(fresh.encode("text", asked[:1]), done.model.encode("text", asked[:1]))
    assert fresh.encoder("text").spec.options == {"skip": "red", "learnt": info.options["learnt"]}
    for options in ({}, {"learnt": None}, {"another": 3}):
        damaged = replace(info, options=options)
        lazy = LazyEncoder(damaged, None, torch.device("cpu"), registry, "a model")
        with pytest.raises(ArtefactError, match="no findings"):
            lazy.load()
    other = replace(Words.spec, options={"skip": "", "learnt": ["blue", "other"]})
    with pytest.raises(ArtefactError, match="not the one this model was trained"):
        fusemix_core.FusedModel.from_pretrained(tmp_path, encoders={"text": other}).encode(
            "text", asked
        )


def test_jobs_without_a_model_fit_too():
    rows, data = table(60)
    found = encode({"text": "toy-words"}, {"text": data["text"]})
    assert found.tables["text"].shape == (6,)
    ranking = rank(["toy-words"], [MatrixEncoder.of(rows, "audio")], data, device="cpu")
    assert len(ranking.pairings) == 1
