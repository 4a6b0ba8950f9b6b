"""fusemix-hubert: weights from disk, preprocessing, padding, windows, views, the contract."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fusemix_hubert import PRESETS, fusemix_encoders
from fusemix_hubert.speech import SpeechEncoder, cut
from fusemix_hubert.waveform import TINY, WaveformEncoder, in_parts, like_lengths
from fusemix_hubert.whisper import WhisperEncoder
from safetensors.torch import load_file, save_file
from transformers import (
    HubertConfig,
    HubertForCTC,
    HubertModel,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from fusemix_core.data.media import Audio
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import Registry
from fusemix_core.testing.encoders import check_encoder

CPU = torch.device("cpu")
RATE = 16_000
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
WHISPER: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 64,
    "vocab_size": 100,
    "max_source_positions": 100,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "decoder_start_token_id": 0,
}
MODELS: dict[str, tuple[Any, Any, Any]] = {
    "hubert-base": (HubertModel, HubertConfig(**TINY), {}),
    "hubert-large": (HubertForCTC, HubertConfig(**TINY, **LAYER), {}),
    "wav2vec2-base-960h": (Wav2Vec2ForCTC, Wav2Vec2Config(**TINY), {}),
    "wav2vec2-xls-r-300m": (Wav2Vec2Model, Wav2Vec2Config(**TINY, **LAYER), {}),
    "wavlm-base-plus": (WavLMModel, WavLMConfig(**TINY), {"do_normalize": False}),
    "wavlm-large": (WavLMModel, WavLMConfig(**TINY, **LAYER), {}),
    "openai-whisper-tiny": (WhisperForConditionalGeneration, WhisperConfig(**WHISPER), {}),
    "openai-whisper-large-v3": (
        WhisperForConditionalGeneration,
        WhisperConfig(**WHISPER, num_mel_bins=128),
        {"feature_size": 128},
    ),
}
LAYER_NORM = ["hubert-large", "wav2vec2-xls-r-300m", "wavlm-large"]
GROUP_NORM = ["hubert-base", "wav2vec2-base-960h", "wavlm-base-plus"]


@pytest.fixture(scope="module")
def registry() -> Registry:
    """The presets, as wide as the miniatures on disk."""
    registry = Registry(entry_points=lambda: [])
    for spec in fusemix_encoders():
        registry.add(replace(spec, dim=TINY["hidden_size"]))
    return registry


def save(name: str, folder: Path) -> tuple[PreTrainedModel, Any]:
    """A random miniature in hub layout; the model and its feature extractor."""
    kind, config, facts = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = kind(config).eval()
        for parameter in model.parameters():  # biases and norms begin as 0 and 1
            parameter.data += 0.05 * torch.randn_like(parameter)
    if config.model_type == "whisper":
        features: Any = WhisperFeatureExtractor(**facts, chunk_length=2)
    else:
        features = Wav2Vec2FeatureExtractor(
            return_attention_mask=config.feat_extract_norm == "layer",
            **{"do_normalize": True, **facts},
        )
    model.save_pretrained(folder)
    features.save_pretrained(folder)
    return model, features


def load(registry: Registry, name: str, folder: Path, dtype=torch.float32) -> SpeechEncoder:
    spec = registry.encoder(f"{name}@{folder}")
    return registry.target_of(spec).load(spec, CPU, dtype)


def noise(seconds: float, seed: int = 0) -> Audio:
    """Noise off the zero line, so that normalising it matters."""
    wave = np.random.default_rng(seed).normal(0.1, 0.2, round(seconds * RATE))
    return Audio(wave.astype(np.float32), RATE)


@torch.no_grad()
def by_the_library(model: PreTrainedModel, features: Any, samples: np.ndarray) -> list[np.ndarray]:
    """The frames with sound `[t, d]` of one window after every block, by transformers alone."""
    inputs = features(samples, sampling_rate=RATE, return_tensors="pt")
    if model.config.model_type == "whisper":
        encoder = model.model.encoder
        output = encoder(inputs["input_features"], output_hidden_states=True)
        frames = int(np.ceil(len(samples) / 320))
    else:
        output = model.base_model(inputs["input_values"], output_hidden_states=True)
        frames = output.last_hidden_state.shape[1]
    blocks = (*output.hidden_states[1:-1], output.last_hidden_state)
    return [h[0, :frames].numpy() for h in blocks]


# -- names -----------------------------------------------------------------------------------------


def test_listing_imports_nothing_heavy():
    code = (
        "import sys, fusemix_hubert as p; p.fusemix_encoders(); "
        "print([m for m in ('torch', 'transformers', 'numpy', 'fusemix_hf') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_are_not_taken_by_another_plugin():
    starter = pytest.importorskip("fusemix_starter")
    taken = {n for s in starter.fusemix_encoders() for n in (s.name, *s.aliases)}
    ours = [n for s in PRESETS for n in (s.name, *s.aliases)]
    assert len(set(ours)) == len(ours) and not taken & set(ours)


def test_presets_are_pinned():
    for spec in PRESETS:
        assert len(spec.revision) == 40 and int(spec.revision, 16)
        assert spec.licence and spec.paper and spec.parameters and spec.dim
        assert spec.sample_rate == RATE and spec.views == ("pooled", "time", "layers")


# -- weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_latents_are_the_librarys_own(registry, tmp_path, name):
    model, features = save(name, tmp_path)
    encoder = load(registry, name, tmp_path)
    clips = [noise(0.7), noise(1.3, 1), noise(0.7, 2), noise(1.29, 3)]
    batch = encoder.collate(clips)
    pooled, layers = encoder.encode(batch), encoder.encode(batch, "layers")
    time = encoder.encode(batch, "time")
    assert layers.shape == (4, 2, 32) and torch.equal(layers[:, -1], pooled)
    for i, clip in enumerate(clips):
        wanted = by_the_library(model, features, clip.samples)
        np.testing.assert_allclose(time.values[i][time.mask[i]], wanted[-1], atol=2e-5)
        np.testing.assert_allclose(pooled[i], wanted[-1].mean(axis=0), atol=1e-5)
        for layer, frames in zip(layers[i], wanted, strict=True):
            np.testing.assert_allclose(layer, frames.mean(axis=0), atol=1e-5)
    assert not time.values[~time.mask].any()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "wav2vec2-base-960h",
        "openai-whisper-large-v3",
        # Their classes are among these or the miniatures.
        *(pytest.param(n, marks=pytest.mark.long) for n in LAYER_NORM),
    ],
)
def test_contract_from_disk(registry, tmp_path, name):
    save(name, tmp_path)
    check_encoder(f"{name}@{tmp_path}", device="cpu", registry=registry).raise_if_failed()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["hubert-base", "wavlm-base", pytest.param("whisper-small", marks=pytest.mark.long)]
)
def test_contract_of_the_miniature(name):
    check_encoder(name, tiny=True).raise_if_failed()


def test_weights_named_as_the_hubs_older_files_are(registry, tmp_path):
    """weight_g and weight_v of the positional convolution, and no masked_spec_embed."""
    save("hubert-large", tmp_path)
    encoder = load(registry, "hubert-large", tmp_path)
    wanted = encoder.encode(encoder.collate([noise(1)]))
    state = load_file(tmp_path / "model.safetensors")
    old = {"parametrizations.weight.original0": "weight_g"}
    old |= {"parametrizations.weight.original1": "weight_v"}
    for new, name in old.items():
        prefix = "hubert.encoder.pos_conv_embed.conv."
        state[prefix + name] = state.pop(prefix + new)
    del state["hubert.masked_spec_embed"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = load(registry, "hubert-large", tmp_path)
    assert torch.equal(again.encode(again.collate([noise(1)])), wanted)
    assert again.weights_digest == encoder.weights_digest


def test_only_whispers_encoder_is_held(registry, tmp_path):
    save("openai-whisper-tiny", tmp_path)
    encoder = load(registry, "openai-whisper-tiny", tmp_path)
    assert not [n for n, _ in encoder.model.named_parameters() if "decoder" in n]


@pytest.mark.parametrize(
    ("saved", "asked", "says"),
    [
        ("wavlm-large", "hubert-large", "contains a model of type wavlm"),
        ("openai-whisper-tiny", "wav2vec2-base", "contains a model of type whisper"),
    ],
)
def test_another_model_is_refused(registry, tmp_path, saved, asked, says):
    save(saved, tmp_path)
    with pytest.raises(ArtefactError, match=says):
        load(registry, asked, tmp_path)


def test_another_width_is_refused(tmp_path):
    save("hubert-base", tmp_path)
    registry = Registry(entry_points=lambda: [])
    registry.add(PRESETS[0])
    with pytest.raises(ArtefactError, match="32 wide; hubert-base@.* is 768"):
        load(registry, "hubert-base", tmp_path)


@pytest.mark.parametrize("name", ["hubert-base", "openai-whisper-tiny"])
def test_weights_that_lack_a_tensor_are_refused(registry, tmp_path, name):
    save(name, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    gone = next(k for k in state if k.endswith("encoder.layers.1.final_layer_norm.weight"))
    del state[gone]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtefactError, match="lack 1 tensors"):
        load(registry, name, tmp_path)


def test_pickled_weights_are_refused(registry, tmp_path):
    model, _ = save("hubert-base", tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ArtefactError) as error:
        load(registry, "hubert-base", tmp_path)
    assert "safetensors" in error.value.hint


def test_mel_bands_that_do_not_fit_are_refused(registry, tmp_path):
    save("openai-whisper-tiny", tmp_path)
    WhisperFeatureExtractor(feature_size=128).save_pretrained(tmp_path)
    with pytest.raises(ArtefactError, match="takes 80 mel bands; .* says 128"):
        load(registry, "openai-whisper-tiny", tmp_path)


def test_fingerprint_follows_the_weights(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "home"))
    folder = tmp_path / "model"
    save("hubert-base", folder)
    spec = registry.encoder(f"hubert-base@{folder}")
    before = fingerprint(spec, "float32")
    state = load_file(folder / "model.safetensors")
    state["encoder.layers.0.final_layer_norm.bias"] += 1
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert before and fingerprint(spec, "float32") != before


@pytest.mark.parametrize("name", ["wavlm-large", "openai-whisper-tiny"])
def test_half_precision_returns_float32_near_the_exact(registry, tmp_path, name):
    save(name, tmp_path)
    exact = load(registry, name, tmp_path)
    rough = load(registry, name, tmp_path, torch.bfloat16)
    batch = exact.collate([noise(1), noise(0.5)])
    latents = rough.encode(batch)
    assert latents.dtype == torch.float32
    assert torch.cosine_similarity(latents, exact.encode(batch)).min() > 0.99


# -- preprocessing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_preprocessing_is_the_librarys_own(registry, tmp_path, name):
    _, features = save(name, tmp_path)
    encoder = load(registry, name, tmp_path)
    clips = [noise(0.6), noise(0.9, 1), noise(0.6, 2)]
    seen = set()
    for group in encoder.collate(clips).groups:
        for row, window in enumerate(group.window.tolist()):
            own = features(clips[window].samples, sampling_rate=RATE, return_tensors="np")
            own = own[features.model_input_names[0]][0]
            got = group.values[row].numpy()
            np.testing.assert_array_equal(got[..., : own.shape[-1]], own)
            assert not got[..., own.shape[-1] :].any()
            seen.add(window)
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("name", GROUP_NORM)
def test_group_norm_models_never_see_padding_or_a_mask(registry, tmp_path, name):
    save(name, tmp_path)
    encoder = load(registry, name, tmp_path)
    clips = [noise(s, i) for i, s in enumerate([0.5, 0.8, 0.5, 0.501, 0.8])]
    groups = encoder.collate(clips).groups
    assert sorted(sorted(g.window.tolist()) for g in groups) == [[0, 2], [1, 4], [3]]
    assert all(g.samples is None for g in groups)


@pytest.mark.parametrize("name", LAYER_NORM)
def test_layer_norm_models_mask_what_is_padded(registry, tmp_path, name):
    save(name, tmp_path)
    encoder = load(registry, name, tmp_path)
    (group,) = encoder.collate([noise(0.8), noise(0.7, 1)]).groups
    assert group.samples.sum(dim=1).tolist() == [12_800, 11_200]
    one = encoder.encode(encoder.collate([noise(0.7, 1)]))
    both = encoder.encode(encoder.collate([noise(0.8), noise(0.7, 1)]))
    torch.testing.assert_close(both[1:], one, rtol=1e-5, atol=1e-5)


# -- windows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hubert-base", "wavlm-large", "openai-whisper-tiny"])
def test_a_long_clip_is_weighted_by_the_frames_of_its_windows(registry, tmp_path, name):
    model, features = save(name, tmp_path)
    encoder = load(registry, name, tmp_path)
    encoder.window = 2 * RATE
    clip = noise(4.7)
    batch = encoder.collate([noise(0.4, 1), clip])
    assert batch.clip.tolist() == [0, 1, 1, 1]
    starts = (0, 2 * RATE, 4 * RATE)
    windows = [clip.samples[at : at + 2 * RATE] for at in starts]
    wanted = np.concatenate([by_the_library(model, features, w)[-1] for w in windows])
    time = encoder.encode(batch, "time")
    np.testing.assert_allclose(time.values[1][time.mask[1]], wanted, atol=2e-5)
    np.testing.assert_allclose(encoder.encode(batch)[1], wanted.mean(axis=0), atol=1e-5)


def test_cutting():
    def lengths(n: int) -> list[int]:
        return [len(w) for w in cut(np.zeros(n, np.float32), 1000, 400)]

    assert lengths(0) == lengths(1) == lengths(400) == [400]
    assert lengths(401) == [401] and lengths(1000) == [1000]
    assert lengths(1399) == [1000]  # the rest is too short for a frame
    assert lengths(1400) == [1000, 400] and lengths(3000) == [1000] * 3


def test_the_shortest_clip_is_padded_with_silence(registry, tmp_path):
    model, features = save("hubert-large", tmp_path)
    encoder = load(registry, "hubert-large", tmp_path)
    assert encoder.least == 400
    clip = noise(0.01)
    (wanted,) = by_the_library(model, features, np.pad(clip.samples, (0, 240)))[-1]
    np.testing.assert_allclose(encoder.encode(encoder.collate([clip]))[0], wanted, atol=1e-5)


def test_an_hour_goes_through_the_model_in_small_parts():
    """What is held at once does not grow with the clip."""
    encoder = WaveformEncoder.tiny(PRESETS[0])
    lengths = [encoder.window] * 120
    parts = list(in_parts(list(range(120)), lengths, encoder.at_once))
    assert {len(p) for p in parts} == {2} and sum(map(len, parts)) == 120
    assert like_lengths([10, 100, 90, 11, 60]) == [[1, 2], [4], [3, 0]]


def test_whispers_windows_go_through_in_small_parts():
    encoder = WhisperEncoder.tiny(PRESETS[-1])
    batch = encoder.collate([noise(40)])
    assert [len(g.values) for g in batch.groups] == [8, 8, 4]
    assert encoder.encode(batch).isfinite().all()


# -- refusals --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> WaveformEncoder:
    return WaveformEncoder.tiny(PRESETS[0])


@pytest.mark.parametrize("wrong", [np.zeros(10, np.float32), "a.wav", (np.zeros(10), RATE)])
def test_wrong_type_raises_type_error(tiny, wrong):
    with pytest.raises(TypeError, match="takes Audio"):
        tiny.collate([wrong])


def test_another_rate_is_refused(tiny):
    with pytest.raises(ValueError, match="16000 Hz, not 8000"):
        tiny.collate([Audio(np.zeros(10, np.float32), 8000)])


def test_unknown_view_is_a_config_error(tiny):
    with pytest.raises(ConfigError, match="no view 'tokens'"):
        tiny.encode(tiny.collate([noise(0.5)]), "tokens")


def test_the_readme_names_every_preset():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    assert all(f"`{spec.name}`" in readme for spec in PRESETS)


def test_saved_settings_are_read(registry, tmp_path):
    save("wavlm-base-plus", tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert settings["do_normalize"] is False
    assert load(registry, "wavlm-base-plus", tmp_path).features.do_normalize is False
