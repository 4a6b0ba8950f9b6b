"""Jobs take models that were fitted before images were decoded as they are now."""

from __future__ import annotations

import json

import pytest
from pairs import write_world
from toys import ToyImage, ToySound, ToyText

from fusemix_core import FusedModel, align, extend
from fusemix_core.config import DataConfig
from fusemix_core.errors import ArtefactError
from fusemix_core.jobs.evaluate import evaluate
from fusemix_core.latents.fingerprint import fingerprint

ENCODERS = {"image": ToyImage, "text": ToyText}
SOURCES = {m: encoder(encoder.spec) for m, encoder in ENCODERS.items()}


def test_a_model_of_before_images_were_decoded_otherwise_is_measured_and_extended(tmp_path):
    data, out = write_world(tmp_path / "w", sounds=True), tmp_path / "r"
    first = align(ENCODERS, data, out=out, device="cpu", baselines=[])
    digest = ToyImage(ToyImage.spec).weights_digest
    _set_fingerprint(out, fingerprint(ToyImage.spec, "float32", digest, decoding=1))
    model = FusedModel.from_pretrained(out / "model", encoders=SOURCES, device="cpu")
    measured = evaluate(model, DataConfig((str(data),)))
    assert measured["retrieval"] == first.results["test"]["retrieval"]
    extended = extend(model, {"audio": ToySound}, data, out=tmp_path / "more", device="cpu")
    assert extended.model.modalities[2] == "audio"


def test_a_model_of_another_image_encoder_is_not(tmp_path):
    data, out = write_world(tmp_path / "w"), tmp_path / "r"
    align(ENCODERS, data, out=out, device="cpu")
    _set_fingerprint(out, "f" * 32)
    model = FusedModel.from_pretrained(out / "model", encoders=SOURCES, device="cpu")
    with pytest.raises(ArtefactError, match="not the one"):
        evaluate(model, DataConfig((str(data),)))


def _set_fingerprint(run, value):
    config = json.loads((run / "model/config.json").read_text())
    assert config["encoders"]["image"]["fingerprint"] != value
    config["encoders"]["image"]["fingerprint"] = value
    (run / "model/config.json").write_text(json.dumps(config))
