"""fusemix-hf: sounds, value for value what transformers' own models and extractors give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    HubertConfig,
    HubertModel,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from fusemix_core.data.media import Audio
from fusemix_core.testing.encoders import check_encoder

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
CONVOLUTIONS = {
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
NEAR = {"rtol": 1e-4, "atol": 1e-5}
WAVES = {
    "hubert-base": lambda: HubertModel(HubertConfig(**SMALL, **CONVOLUTIONS)),
    "hubert-large": lambda: HubertModel(
        HubertConfig(**SMALL, **CONVOLUTIONS, feat_extract_norm="layer", do_stable_layer_norm=True)
    ),
    "wav2vec2-large": lambda: Wav2Vec2Model(
        Wav2Vec2Config(
            **SMALL, **CONVOLUTIONS, feat_extract_norm="layer", do_stable_layer_norm=True
        )
    ),
}


@pytest.mark.parametrize("kind", WAVES)
def test_waveforms_are_as_if_each_were_alone(save, load, clips, kind):
    """Those of `base` are trained without a mask and normalise over time: never padded."""
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask="large" in kind)
    folder, model = save(WAVES[kind], extractor)
    encoder = load(folder)
    hidden = []
    for clip in clips:
        values = extractor(clip.samples, sampling_rate=16_000, return_tensors="pt").input_values
        with torch.no_grad():
            output = model(values, output_hidden_states=True)
        hidden.append(torch.stack([*output.hidden_states[:-1], output.last_hidden_state])[:, 0])
    batch = encoder.collate(clips)
    assert len(batch) == (1 if "large" in kind else 4)
    pooled, layers = encoder.encode(batch), encoder.encode(batch, "layers")
    torch.testing.assert_close(pooled, torch.stack([h[-1].mean(0) for h in hidden]), **NEAR)
    torch.testing.assert_close(layers, torch.stack([h[1:].mean(1) for h in hidden]), **NEAR)
    torch.testing.assert_close(layers[:, -1], pooled)
    time = encoder.encode(batch, "time")
    assert time.mask.sum(1).tolist() == [h.shape[1] for h in hidden]
    for row, wanted in zip(time.values, hidden, strict=True):
        torch.testing.assert_close(row[: wanted.shape[1]], wanted[-1], **NEAR)
        assert not row[wanted.shape[1] :].any()


def test_padding_is_the_extractors_own(save, load, clips):
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    encoder = load(save(WAVES["hubert-large"], extractor)[0])
    ((rows, got),) = encoder.collate(clips)
    wanted = extractor(
        [c.samples for c in clips], sampling_rate=16_000, padding=True, return_tensors="pt"
    )
    assert rows.tolist() == list(range(len(clips)))
    assert torch.equal(got["input_values"], wanted["input_values"])
    assert torch.equal(got["attention_mask"], wanted["attention_mask"])


def test_a_spectrogram_with_a_mask(save, load, clips):
    config = Wav2Vec2BertConfig(**SMALL, feature_projection_input_dim=160, vocab_size=None)
    extractor = SeamlessM4TFeatureExtractor()
    folder, model = save(lambda: Wav2Vec2BertModel(config), extractor)
    encoder = load(folder)
    whole = encoder.encode(encoder.collate(clips[:4]))
    for clip, got in zip(clips[:4], whole, strict=True):
        inputs = extractor(clip.samples, sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state[0]
        wanted = hidden[inputs["attention_mask"][0].bool()].mean(0)
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_whisper_gives_its_encoder_where_there_is_sound(save, load, clips):
    config = WhisperConfig(
        d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=16,
        max_source_positions=100, vocab_size=60, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    folder, model = save(lambda: WhisperForConditionalGeneration(config), extractor)
    encoder = load(folder)
    mel = extractor([c.samples for c in clips], sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        hidden = model.model.encoder(mel.input_features).last_hidden_state
    frames = [-(-len(c.samples) // 320) for c in clips]  # 20 ms each
    wanted = torch.stack([h[:n].mean(0) for h, n in zip(hidden, frames, strict=True)])
    batch = encoder.collate(clips)
    torch.testing.assert_close(encoder.encode(batch), wanted, **NEAR)
    assert encoder.encode(batch, "time").mask.sum(1).tolist() == frames
    torch.testing.assert_close(encoder.encode(batch, "layers")[:, -1], wanted, **NEAR)
    long = Audio(np.zeros(40_000, np.float32), 16_000)
    assert encoder.truncated([*clips, long]) == 1


def test_a_model_without_frames_in_time_gives_its_own_pooling(save, load, clips):
    config = ASTConfig(**SMALL, patch_size=16, max_length=64, num_mel_bins=32)
    extractor = ASTFeatureExtractor(num_mel_bins=32, max_length=64)
    folder, model = save(lambda: ASTModel(config), extractor)
    encoder = load(folder)
    batch = encoder.collate(clips)
    values = extractor([c.samples for c in clips], sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        wanted = model(**values).pooler_output
    torch.testing.assert_close(encoder.encode(batch), wanted, **NEAR)
    assert encoder.spec.views == ("pooled",)


def test_another_rate_is_a_value_error(save, load):
    encoder = load(save(WAVES["hubert-base"], Wav2Vec2FeatureExtractor())[0])
    with pytest.raises(ValueError, match="takes 16000 Hz, not 8000 Hz"):
        encoder.collate([Audio(np.zeros(800, np.float32), 8_000)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param("hubert-base", marks=pytest.mark.long), "hubert-large"]
)
def test_kit(save, registry, kind):
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask="large" in kind)
    folder, _ = save(WAVES[kind], extractor)
    report = check_encoder(f"hf:tiny@{folder}", device="cpu", registry=registry)
    assert not [result for result in report if not result.passed]


@pytest.mark.slow
def test_kit_on_the_miniature(save, registry):
    folder, _ = save(WAVES["hubert-base"], Wav2Vec2FeatureExtractor())
    report = check_encoder(f"hf:tiny@{folder}", tiny=True, registry=registry)
    assert not [result for result in report if not result.passed]
