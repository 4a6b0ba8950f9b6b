"""fusemix-hf: models of several towers, in the space that these share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

from fusemix_core.data.media import Audio
from fusemix_core.errors import ConfigError
from fusemix_core.testing.encoders import check_encoder

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 64}
TEXT = {**SMALL, "vocab_size": 150, "max_position_embeddings": 48}
TEXT |= {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}
SIZES = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
NEAR = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def clip(save, tokenizer):
    config = CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)
    return save(lambda: CLIPModel(config), CLIPImageProcessorPil(**SIZES), tokenizer)


def test_clip(clip, load, tokenizer, texts, images):
    folder, model = clip
    image, text = load(folder, "image"), load(folder, "text")
    assert (image.spec.dim, text.spec.dim) == (16, 16)
    assert image.spec.takes == "image" and text.spec.takes == "text"
    assert image.spec.views == text.spec.views == ("pooled",)
    pixels = CLIPImageProcessorPil(**SIZES)(
        images, input_data_format="channels_last", return_tensors="pt"
    )
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        wanted = model(**pixels, **tokens)
    got = image.encode(image.collate(images)), text.encode(text.collate(texts))
    unit = [torch.nn.functional.normalize(x, dim=1) for x in got]
    torch.testing.assert_close(unit[0], wanted.image_embeds, **NEAR)
    torch.testing.assert_close(unit[1], wanted.text_embeds, **NEAR)
    for text_, row in zip(texts, got[1], strict=True):
        torch.testing.assert_close(text.encode(text.collate([text_]))[0], row, **NEAR)


@pytest.mark.parametrize("modality", [None, "audio", "molecule"])
def test_without_its_modality_the_error_says_how_to_write_it(clip, load, modality):
    with pytest.raises(ConfigError, match="has towers for text and image") as error:
        load(clip[0], modality)
    assert "-e text=hf:tiny or -e image=hf:tiny" in error.value.hint


def test_the_towers_have_different_fingerprints(clip, registry, monkeypatch, tmp_path):
    from fusemix_core.latents.fingerprint import fingerprint

    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "home"))
    name = f"hf:tiny@{clip[0]}"
    prints = [fingerprint(registry.encoder(name, m), "float32") for m in ("image", "text")]
    assert None not in prints and prints[0] != prints[1]


def test_siglip_reads_texts_at_full_length(save, load, tokenizer, texts, images):
    config = SiglipConfig(text_config=TEXT, vision_config=VISION)
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    folder, model = save(lambda: SiglipModel(config), processor, tokenizer)
    text, image = load(folder, "text"), load(folder, "image")
    ids = tokenizer(
        texts, padding="max_length", truncation=True, max_length=48, return_tensors="pt"
    )
    with torch.no_grad():
        wanted = model.get_text_features(input_ids=ids["input_ids"]).pooler_output
    torch.testing.assert_close(text.encode(text.collate(texts)), wanted, **NEAR)
    torch.testing.assert_close(text.encode(text.collate(texts[:1])), wanted[:1], **NEAR)
    pixels = processor(images, input_data_format="channels_last", return_tensors="pt").pixel_values
    with torch.no_grad():
        wanted = model.get_image_features(pixel_values=pixels).pooler_output
    torch.testing.assert_close(image.encode(image.collate(images)), wanted, **NEAR)


AUDIO = {
    "spec_size": 128,
    "num_mel_bins": 32,
    "patch_embeds_hidden_size": 8,
    "hidden_size": 64,
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 2, 2, 2],
    "window_size": 2,
    "patch_size": 4,
    "patch_stride": [4, 4],
}


def test_clap(save, load, tokenizer, clips):
    roberta = {**SMALL, "vocab_size": 150, "max_position_embeddings": 60}
    config = ClapConfig(text_config=roberta, audio_config=AUDIO, projection_dim=16)
    extractor = ClapFeatureExtractor(
        feature_size=32,
        sampling_rate=16_000,
        frequency_max=8_000,
        max_length_s=1,
        truncation="rand_trunc",
    )
    folder, model = save(lambda: ClapModel(config), extractor, tokenizer)
    encoder = load(folder, "audio")
    long = Audio(np.concatenate([clips[0].samples] * 4), 16_000)
    before = np.random.get_state()[1].copy()
    got = encoder.encode(encoder.collate([*clips, long]))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002  numpy's global one
    cut = [c.samples[:16_000] for c in (*clips, long)]
    inputs = extractor(cut, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        wanted = model.get_audio_features(**inputs).pooler_output
    torch.testing.assert_close(got, wanted, **NEAR)
    assert encoder.truncated([*clips, long]) == 1
    extractor.truncation = "fusion"
    extractor.save_pretrained(folder)
    with pytest.raises(ConfigError, match="fuses random pieces") as error:
        load(folder, "audio")
    assert "fusemix-clap" in error.value.hint


@pytest.mark.parametrize("modality", ["text", pytest.param("image", marks=pytest.mark.long)])
def test_kit(clip, registry, modality):
    report = check_encoder(f"hf:tiny@{clip[0]}", modality=modality, device="cpu", registry=registry)
    assert not [result for result in report if not result.passed]
