"""fusemix-diffusers: pipelines behind `load_generator`, conditioned by a fused model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fusemix_core import load_generator
from fusemix_core.adapters.identity import IdentityAdapter
from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.errors import ConfigError
from fusemix_core.fused import EncoderInfo, FusedModel
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import registry
from fusemix_core.scorers.cosine import CosineScorer

FAST = {"steps": 2}


def arrays(images):
    return np.stack([np.asarray(image).astype(int) for image in images])


def fused(folder, fixed):
    """A model of the pipeline's own text and image encoder, of which one is fixed."""
    encoders, sources = {}, {}
    for modality in ("text", "image"):
        spec = registry.encoder(f"condition:mine#{modality}@{folder}")
        known = fingerprint(spec, "float32")
        encoders[modality] = EncoderInfo.of(
            spec, modality=modality, dim=spec.dim, fingerprint=known, view="pooled"
        )
        sources[modality] = spec
    torch.manual_seed(0)
    width = encoders[fixed].dim
    adapters = {
        m: IdentityAdapter(width, width) if m == fixed else LinearAdapter(info.dim, width)
        for m, info in encoders.items()
    }
    return FusedModel(adapters, encoders, CosineScorer(), sources=sources, device="cpu")


def test_a_text_draws_what_it_draws_as_a_prompt(stable, capfd):
    folder, pipeline = stable["sd"]
    capfd.readouterr()
    draw = load_generator(f"diffusers:mine@{folder}", device="cpu")
    got = draw(None, {"text": "a dog"}, seed=3, **FAST)
    assert capfd.readouterr() == ("", "")  # no bars
    wanted = pipeline(
        prompt=["a dog"],
        height=16,
        width=16,
        num_inference_steps=2,
        generator=[torch.Generator().manual_seed(3)],
    )
    assert (arrays(got) == arrays(wanted.images)).all()


def test_an_image_draws_through_an_adapter_as_its_raw_embedding_does(stable):
    folder, pipeline = stable["sd"]
    draw = load_generator(f"diffusers:mine#ip@{folder}", device="cpu")
    image = Image.new("RGB", (20, 20), "teal")
    pixels = pipeline.feature_extractor(image, return_tensors="pt").pixel_values
    with torch.no_grad():
        raw = pipeline.image_encoder(pixels).image_embeds
    assert raw.norm() > 1.5
    got = draw(fused(folder, "image"), {"image": image}, seed=1, **FAST)
    wanted = draw.generator.generate(raw, seeds=[1], **FAST)
    assert (arrays(got) == arrays(wanted)).all()
    from_text = draw(fused(folder, "image"), {"text": "a dog"}, seed=1, **FAST)
    assert np.abs(arrays(from_text) - arrays(got)).max() > 3


def test_a_model_that_is_fixed_to_another_encoder_is_refused(stable):
    folder = stable["sd"][0]
    draw = load_generator(f"diffusers:mine#ip@{folder}", device="cpu")
    with pytest.raises(ConfigError, match="draws from latents of the encoder") as error:
        draw(fused(folder, "text"), {"text": "a dog"}, **FAST)
    assert "fusemix align" in error.value.hint and "--fixed image" in error.value.hint


def test_any_model_with_images_guides(stable):
    folder = stable["sd"][0]
    model = fused(folder, "text")
    draw = load_generator(f"diffusers:mine#guidance@{folder}", device="cpu")
    wanted = model.encode("text", ["a dog"])[0]
    scores = []
    for strength in (0.0, 200.0):
        images = draw(model, {"text": "a dog"}, count=2, steps=6, guidance=1.0, strength=strength)
        scores.append(float((model.encode("image", images) @ wanted).mean()))
    assert scores[1] > scores[0] + 0.01
