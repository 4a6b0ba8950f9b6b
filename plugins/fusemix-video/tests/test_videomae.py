"""fusemix-video: VideoMAE through transformers, from folders in hub layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fusemix_video import PRESETS
from fusemix_video.decoding import Video
from fusemix_video.samples import sample_videos
from fusemix_video.sampling import Sampling
from fusemix_video.videomae import VideoMAEEncoder
from safetensors.torch import load_file, save_file
from transformers import (
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessorPil,
    VideoMAEModel,
)

from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import registry
from fusemix_core.testing import check_encoder

CPU = torch.device("cpu")
SMALL = {
    "image_size": 32,
    "num_frames": 4,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 16,
    "initializer_range": 0.3,
}
PROCESSOR = {
    "crop_size": {"height": 32, "width": 32},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "feature_extractor_type": "VideoMAEFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 2,
    "size": {"shortest_edge": 32},
}
"""The hub's preprocessor_config.json of MCG-NJU/videomae-base, at 32 pixels."""


def save(folder: Path, kind, seed: int = 0, **config) -> Path:
    """A model in hub layout: the biases of queries and values under their published names."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(VideoMAEConfig(**SMALL, **config))
        for name, value in model.named_parameters():  # transformers starts these at 0 and 1
            if name.endswith("bias") or "norm" in name:
                value.data.add_(0.3 * torch.randn_like(value))
    model.save_pretrained(folder)
    published = {}
    for key, value in load_file(folder / "model.safetensors").items():
        key = key.replace("query.bias", "q_bias").replace("value.bias", "v_bias")
        published[key] = value
    save_file(published, folder / "model.safetensors", {"format": "pt"})
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    return save(folder, VideoMAEForPreTraining, use_mean_pooling=False)


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finetuned")
    return save(folder, VideoMAEForVideoClassification, use_mean_pooling=True, num_labels=3)


def load(folder: Path, name: str = "videomae-base") -> VideoMAEEncoder:
    spec = registry.encoder(f"{name}@{folder}")
    return registry.target_of(spec).load(spec, CPU, torch.float32)


# -- preprocessing ---------------------------------------------------------------------------------


def test_pixels_are_those_of_the_models_own_processor(pretrained):
    videos = list(sample_videos())
    got = load(pretrained).collate(videos)
    theirs = VideoMAEImageProcessorPil.from_pretrained(pretrained)
    for path, pixels in zip(videos, got, strict=True):
        with Video(path) as video:
            pictures = list(video.pictures(Sampling(4).times(video.duration)))
        wanted = theirs([np.asarray(p) for p in pictures], return_tensors="pt").pixel_values[0]
        assert torch.equal(pixels, wanted)
    assert got.shape == (8, 4, 3, 32, 32)
    assert list(theirs.image_mean) == PROCESSOR["image_mean"]


# -- latents ---------------------------------------------------------------------------------------


def test_latents_of_a_pretrained_model(pretrained):
    encoder = load(pretrained)
    batch = encoder.collate(list(sample_videos()[:3]))
    model = VideoMAEForPreTraining.from_pretrained(pretrained).videomae.eval()
    with torch.no_grad():
        tokens = model(batch).last_hidden_state
    assert torch.equal(encoder.encode(batch, "tokens"), tokens)
    assert torch.equal(encoder.encode(batch), tokens.mean(dim=1))
    assert tokens.shape == (3, 2 * 2 * 2, 24)
    assert model.layernorm is not None


def test_published_biases_are_read(pretrained):
    """transformers 5 has these under other names; before 5.18 it lost them."""
    state = load_file(pretrained / "model.safetensors")
    attention = load(pretrained).model.encoder.layer[1].attention.attention
    stem = "videomae.encoder.layer.1.attention.attention"
    assert torch.equal(attention.query.bias, state[f"{stem}.q_bias"])
    assert torch.equal(attention.value.bias, state[f"{stem}.v_bias"])
    assert state[f"{stem}.q_bias"].any()


def test_a_finetuned_model_pools_as_its_classifier_does(finetuned):
    encoder = load(finetuned, "videomae-base-kinetics")
    batch = encoder.collate(list(sample_videos()[:3]))
    whole = VideoMAEForVideoClassification.from_pretrained(finetuned).eval()
    seen = []
    whole.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        whole(batch)
    assert torch.equal(encoder.encode(batch), seen[0])


@pytest.mark.parametrize("kind", ["pretrained", "finetuned"])
def test_layers(kind, request):
    encoder = load(request.getfixturevalue(kind))
    batch = encoder.collate(list(sample_videos()[:2]))
    layers = encoder.encode(batch, "layers")
    assert layers.shape == (2, 3, 24)
    assert torch.equal(layers[:, -1], encoder.encode(batch))
    hidden = []
    hooks = [
        block.register_forward_hook(lambda *args: hidden.append(args[-1]))
        for block in encoder.model.encoder.layer
    ]
    encoder.encode(batch)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(layers[:, 0], hidden[0].mean(dim=1))
    torch.testing.assert_close(layers[:, 1], hidden[1].mean(dim=1))


@pytest.mark.slow
def test_conformance():
    check_encoder("videomae-base", tiny=True).raise_if_failed()


def test_empty_and_refused(pretrained):
    encoder = load(pretrained)
    for view, shape in (("pooled", (0, 24)), ("tokens", (0, 8, 24)), ("layers", (0, 3, 24))):
        assert encoder.encode(encoder.collate([]), view).shape == shape
    with pytest.raises(ConfigError, match="no view 'grid'"):
        encoder.encode(encoder.collate([]), "grid")
    with pytest.raises(TypeError, match="takes a Path, not bytes"):
        encoder.collate([b"video"])


# -- weights ---------------------------------------------------------------------------------------


def test_weights_that_do_not_fit_are_refused(pretrained, tmp_path):
    for file in ("config.json", "preprocessor_config.json"):
        (tmp_path / file).write_bytes((pretrained / file).read_bytes())
    state = load_file(pretrained / "model.safetensors")
    lost = "videomae.encoder.layer.2.attention.attention.q_bias"
    save_file({k: v for k, v in state.items() if k != lost}, tmp_path / "model.safetensors")
    with pytest.raises(ArtefactError, match="lack 1 tensors.*query.bias"):
        load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ArtefactError, match="can't be loaded"):
        load(tmp_path)


def test_fingerprint_follows_the_weights(pretrained, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "home"))
    other = save(tmp_path / "other", VideoMAEForPreTraining, seed=1, use_mean_pooling=False)
    specs = [registry.encoder(f"videomae-base@{folder}") for folder in (pretrained, other)]
    prints = {fingerprint(spec, "float32") for spec in (*specs, *PRESETS)}
    assert len(prints) == 5 and None not in prints


@pytest.mark.parametrize("spec", PRESETS, ids=lambda s: s.name)
def test_facts_of_the_presets(spec):
    """Width and number of parameters, of an architecture without weights."""
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    finetuned = "kinetics" in spec.name
    config = VideoMAEConfig(
        **(large | {"intermediate_size": 4096} if "large" in spec.name else {}),
        use_mean_pooling=finetuned,
        num_frames=2,  # the table of positions is fixed, and slow to make
        num_labels=0,
    )
    with torch.device("meta"):
        model = (VideoMAEForVideoClassification if finetuned else VideoMAEModel)(config)
    assert config.hidden_size == spec.dim and len(spec.revision) == 40
    assert sum(p.numel() for p in model.parameters()) == spec.parameters
