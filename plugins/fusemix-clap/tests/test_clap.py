"""fusemix-clap through transformers: weights from disk, preprocessing, long clips, the contract."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fusemix_clap import HUB, fusemix_encoders
from fusemix_clap.audio import TINY as AUDIO
from fusemix_clap.audio import ClapAudioEncoder
from fusemix_clap.sound import fuse, long_mel
from fusemix_clap.text import TINY as TEXT
from fusemix_clap.text import ClapTextEncoder, byte_tokenizer
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertModel,
    ClapAudioConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
)

from fusemix_core.data.media import Audio
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import Registry
from fusemix_core.testing.encoders import check_encoder

CPU = torch.device("cpu")
RATE = 48_000
FULL = 2 * RATE
"""The longest window of the models on disk; a real one's is 10 s."""
TEXTS = ["rain on a tin roof", "a dog barks", "🙂", "x" * 200]
TRUNCATION = {"unfused": "rand_trunc", "fused": "fusion"}


@pytest.fixture(scope="module")
def registry() -> Registry:
    """The presets, as wide as the miniatures on disk."""
    registry = Registry(entry_points=lambda: [])
    for spec in fusemix_encoders():
        registry.add(replace(spec, dim=AUDIO["projection_dim"]))
    return registry


def save(kind: str, folder: Path) -> tuple[ClapModel, ClapFeatureExtractor]:
    """A random CLAP in hub layout; with the settings of the hub's preprocessor_config.json."""
    config = ClapConfig(
        audio_config=ClapAudioConfig(**AUDIO, enable_fusion=kind == "fused").to_dict(),
        text_config=ClapTextConfig(**TEXT).to_dict(),
        projection_dim=AUDIO["projection_dim"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = ClapModel(config).eval()
        for parameter in model.parameters():  # biases and norms begin as 0 and 1
            parameter.data += 0.05 * torch.randn_like(parameter)
    features = ClapFeatureExtractor(
        truncation=TRUNCATION[kind], frequency_min=50, frequency_max=14_000, max_length_s=2
    )
    model.save_pretrained(folder)
    features.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return model, features


@pytest.fixture(scope="module", params=["unfused", "fused"])
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, *save(request.param, folder)


def load(registry: Registry, name: str, folder: Path, dtype=torch.float32):
    spec = registry.encoder(f"{name}@{folder}")
    return registry.target_of(spec).load(spec, CPU, dtype)


def noise(seconds: float, seed: int = 0) -> Audio:
    random = np.random.default_rng(seed)
    wave = random.normal(0, 0.1, round(seconds * RATE)) * random.uniform(0.2, 2)
    return Audio(wave.astype(np.float32), RATE)


@torch.no_grad()
def by_the_library(model, features, samples: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """(input, latent) of a clip by transformers alone. It takes crops and marks a clip as long at
    random: crops are those from the middle here, and only long clips are marked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.random, "choice", lambda numbers: numbers[len(numbers) // 2])
        inputs = features(samples, sampling_rate=RATE, return_tensors="pt")
    inputs["is_longer"] = torch.tensor([[len(samples) > FULL]])
    return inputs["input_features"][0], model.get_audio_features(**inputs).pooler_output[0]


# -- names -----------------------------------------------------------------------------------------


def test_listing_imports_nothing_heavy():
    code = (
        "import sys, fusemix_clap as p; p.fusemix_encoders(); heavy = "
        "('torch', 'transformers', 'numpy', 'fusemix_hf', 'laion_clap', 'tokenizers'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_presets_are_pinned_and_named_in_the_readme():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    names = [n for s in fusemix_encoders() for n in (s.name, *s.aliases)]
    assert len(set(names)) == len(names)
    for spec in HUB:
        assert len(spec.revision) == 40 and int(spec.revision, 16)
        assert spec.dim == 512 and spec.licence and spec.normalised
    assert all(f"`{s.name}" in readme for s in fusemix_encoders() if s.modality == "audio")


# -- the audio tower -------------------------------------------------------------------------------


def test_clips_of_a_window_or_less_are_the_librarys_own(registry, saved):
    kind, folder, model, features = saved
    encoder = load(registry, f"clap-htsat-{kind}", folder)
    clips = [noise(0.3), noise(0.9, 1), noise(1.7, 2), noise(2, 3)]
    batch = encoder.collate(clips)
    latents = encoder.encode(batch)
    assert not batch.longer.any() and batch.clip.tolist() == [0, 1, 2, 3]
    for i, clip in enumerate(clips):
        mel, wanted = by_the_library(model, features, clip.samples)
        np.testing.assert_array_equal(batch.values[i], mel)
        torch.testing.assert_close(latents[i], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("saved", ["fused"], indirect=True)
@pytest.mark.parametrize("seconds", [2.005, 2.02, 2.2, 4.7])
def test_a_long_clip_is_fused_as_by_the_library(registry, saved, seconds):
    _, folder, model, features = saved
    encoder = load(registry, "clap-htsat-fused", folder)
    clip = noise(seconds)
    batch = encoder.collate([noise(1, 1), clip])
    mel, wanted = by_the_library(model, features, clip.samples)
    np.testing.assert_array_equal(batch.values[1], mel)
    if batch.longer[1]:  # a clip of less than a frame more is not
        torch.testing.assert_close(encoder.encode(batch)[1], wanted, rtol=1e-4, atol=1e-5)
    assert batch.longer.flatten().tolist() == [False, seconds > 2.01]


@pytest.mark.parametrize("saved", ["unfused"], indirect=True)
def test_a_long_clip_without_fusion_is_the_mean_of_its_windows(registry, saved):
    _, folder, model, features = saved
    encoder = load(registry, "clap", folder)
    clip = noise(4.6)
    parts = [clip.samples[at : at + FULL] for at in range(0, len(clip.samples), FULL)]
    unit = torch.stack([by_the_library(model, features, part)[1] for part in parts])
    mean = (unit * torch.tensor([[2.0], [2.0], [0.6]])).sum(dim=0)
    got = encoder.encode(encoder.collate([noise(1, 1), clip]))[1]
    torch.testing.assert_close(got, mean / mean.norm(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("saved", ["fused"], indirect=True)
def test_contract_from_disk(registry, saved):
    kind, folder, *_ = saved
    name = f"clap-htsat-{kind}@{folder}"
    check_encoder(name, device="cpu", registry=registry).raise_if_failed()


@pytest.mark.parametrize("name", [pytest.param("clap", marks=pytest.mark.long), "clap-text"])
def test_contract_of_the_miniature(name):
    check_encoder(name, tiny=True).raise_if_failed()


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
def test_preprocessing_with_the_hubs_own_settings(truncation):
    """Those of laion/clap-htsat-*: 10 s, 50 to 14,000 Hz, repeatpad."""
    features = ClapFeatureExtractor(
        feature_size=64,
        sampling_rate=RATE,
        hop_length=480,
        max_length_s=10,
        fft_window_size=1024,
        frequency_min=50,
        frequency_max=14_000,
        truncation=truncation,
        padding="repeatpad",
    )
    tiny = ClapAudioEncoder.tiny(HUB[0])
    encoder = ClapAudioEncoder(tiny.spec, tiny.model, features, CPU)
    clips = [noise(0.5), noise(10, 1)]
    own = features([c.samples for c in clips], sampling_rate=RATE, return_tensors="np")
    batch = encoder.collate(clips)
    assert batch.values.shape[2:] == (1001, 64)
    np.testing.assert_array_equal(batch.values, own["input_features"].astype(np.float32))


def test_mel_in_pieces_is_the_mel_at_once(monkeypatch):
    encoder = ClapAudioEncoder.tiny(HUB[0])
    samples = noise(3.217).samples
    monkeypatch.setattr("fusemix_clap.sound._FRAMES", 50)
    pieces = long_mel(samples, 480, encoder._fusion_mel)
    assert torch.equal(pieces, encoder._fusion_mel(samples))


def test_fusing_a_clip_barely_longer_than_the_window():
    mel = torch.arange(12.0).reshape(6, 2)
    shrunk, *crops = fuse(mel, 5)
    assert shrunk.shape == (5, 2)
    assert torch.equal(crops[0], mel[1:]) or torch.equal(crops[0], mel[:5])
    assert torch.equal(crops[2], mel[:5])


# -- the text tower --------------------------------------------------------------------------------


def test_texts_are_the_librarys_own(registry, saved):
    kind, folder, model, _ = saved
    encoder = load(registry, f"clap-htsat-{kind}-text", folder)
    pooled = encoder.encode(encoder.collate(TEXTS))
    tokens = encoder.encode(encoder.collate(TEXTS), "tokens")
    assert encoder.truncated(TEXTS) == 1 and tokens.mask.sum(dim=1)[-1] == 77
    own = byte_tokenizer()
    for i, text in enumerate(TEXTS):
        inputs = own(text, truncation=True, max_length=77, return_tensors="pt")
        with torch.no_grad():
            wanted = model.get_text_features(**inputs)
        torch.testing.assert_close(pooled[i], wanted.pooler_output[0], rtol=1e-4, atol=1e-5)
        got = tokens.values[i][tokens.mask[i]]
        torch.testing.assert_close(got, wanted.last_hidden_state[0], rtol=1e-4, atol=1e-5)


@pytest.mark.long  # short: test_contract_of_the_miniature, and latents by the library, from disk
def test_contract_of_texts_from_disk(registry, saved):
    kind, folder, *_ = saved
    name = f"clap-htsat-{kind}-text@{folder}"
    check_encoder(name, device="cpu", registry=registry).raise_if_failed()


# -- weights ---------------------------------------------------------------------------------------


def test_each_tower_holds_only_itself(registry, saved):
    kind, folder, *_ = saved
    audio = load(registry, f"clap-htsat-{kind}", folder)
    text = load(registry, f"clap-htsat-{kind}-text", folder)
    assert all(n.startswith("audio") for n, _ in audio.model.named_parameters())
    assert all(n.startswith("text") for n, _ in text.model.named_parameters())


def test_fusion_that_does_not_fit_is_refused(registry, tmp_path):
    save("unfused", tmp_path)
    ClapFeatureExtractor(truncation="fusion").save_pretrained(tmp_path)
    with pytest.raises(ArtefactError, match="enable_fusion=False; .* truncation='fusion'"):
        load(registry, "clap", tmp_path)


@pytest.mark.parametrize("name", ["clap", "clap-text"])
def test_another_model_is_refused(registry, tmp_path, name):
    config = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(**config, num_hidden_layers=1, vocab_size=9)).save_pretrained(tmp_path)
    with pytest.raises(ArtefactError):
        load(registry, name, tmp_path)


def test_another_width_is_refused(tmp_path):
    save("unfused", tmp_path)
    registry = Registry(entry_points=lambda: [])
    registry.add(HUB[0])
    with pytest.raises(ArtefactError, match="projects to 32 dimensions; .* to 512"):
        load(registry, "clap", tmp_path)


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("clap", "audio_projection.linear2.weight"),
        ("clap-text", "text_projection.linear1.bias"),
    ],
)
def test_weights_that_lack_a_tensor_are_refused(registry, tmp_path, name, gone):
    save("unfused", tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state[gone]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtefactError, match=f"lack 1 tensors .* {gone}"):
        load(registry, name, tmp_path)


def test_a_missing_tokenizer_is_refused(registry, tmp_path):
    save("unfused", tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ArtefactError, match="knows no word"):
        load(registry, "clap-text", tmp_path)


def test_fingerprint_follows_the_weights(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "home"))
    folder = tmp_path / "model"
    save("unfused", folder)
    spec = registry.encoder(f"clap@{folder}")
    before = fingerprint(spec, "float32")
    state = load_file(folder / "model.safetensors")
    state["audio_projection.linear1.bias"] += 1
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert before and fingerprint(spec, "float32") != before


@pytest.mark.parametrize("name", ["clap", "clap-text"])
def test_half_precision_returns_float32_near_the_exact(registry, tmp_path, name):
    save("unfused", tmp_path)
    exact = load(registry, name, tmp_path)
    rough = load(registry, name, tmp_path, torch.bfloat16)
    batch = exact.collate([noise(1), noise(2)] if name == "clap" else TEXTS)
    latents = rough.encode(batch)
    assert latents.dtype == torch.float32
    assert torch.cosine_similarity(latents, exact.encode(batch)).min() > 0.98


# -- refusals --------------------------------------------------------------------------------------


def test_refusals():
    audio, text = ClapAudioEncoder.tiny(HUB[0]), ClapTextEncoder.tiny(HUB[1])
    with pytest.raises(TypeError, match="takes Audio"):
        audio.collate(["a.wav"])
    with pytest.raises(ValueError, match="48000 Hz, not 16000"):
        audio.collate([Audio(np.zeros(10, np.float32), 16_000)])
    with pytest.raises(TypeError, match="takes str"):
        text.collate([b"rain"])
    for encoder in (audio, text):
        with pytest.raises(ConfigError, match="no view 'time'"):
            encoder.encode(encoder.collate([]), "time")


def test_texts_are_tokenised_once_for_a_batch(monkeypatch):
    encoder = ClapTextEncoder.tiny(
        next(spec for spec in fusemix_encoders() if spec.modality == "text")
    )
    texts, calls = ["rain", "a very long text " * 40, "x" * 75, "x" * 76], []
    wanted = encoder.truncated(texts)
    tokenizer = encoder.tokenizer
    monkeypatch.setattr(encoder, "tokenizer", lambda *a, **k: calls.append(a) or tokenizer(*a, **k))
    batch, cut = encoder.collated(texts)
    assert cut == wanted == 2 and len(calls) == 1
    assert batch["input_ids"].shape == (4, 77)
