"""fusemix-starter's speech encoder: windows, masking, the mean over frames with sound."""

from __future__ import annotations

import pickle
from dataclasses import replace
from multiprocessing import util

import ctranslate2
import numpy as np
import pytest
import started
import torch
from fusemix_starter import WHISPER_TINY
from fusemix_starter.speech import FRAME, SAMPLE_RATE, WhisperEncoder
from transformers import WhisperFeatureExtractor

from fusemix_core.data.media import Audio
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.packaged import packaged_weights
from fusemix_core.testing import worker
from fusemix_core.testing.worker import collate_in_worker

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    return WhisperEncoder.load(WHISPER_TINY, CPU, torch.float32)


def tone(seconds: float, hertz: float = 440.0) -> Audio:
    """A tone that swells and fades, so that no two frames are alike."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = 0.3 * np.sin(2 * np.pi * hertz * t) * np.sin(np.pi * t / max(seconds, 1e-9))
    return Audio(wave.astype(np.float32), SAMPLE_RATE)


def frames_of(encoder: WhisperEncoder, samples: np.ndarray) -> np.ndarray:
    """All 1,500 frames of one window, straight through CTranslate2 and Whisper's own features."""
    features = WhisperFeatureExtractor(feature_size=80)
    mel = features(samples, sampling_rate=SAMPLE_RATE, return_tensors="np").input_features
    return np.array(encoder.model.encode(ctranslate2.StorageView.from_array(mel)))[0]


def test_a_short_clip_is_the_mean_over_its_own_frames(encoder):
    clip = tone(1.3)
    frames = frames_of(encoder, clip.samples)
    wanted = frames[: int(np.ceil(len(clip.samples) / FRAME))].mean(axis=0)
    got = encoder.encode(encoder.collate([clip]))
    assert got.shape == (1, WHISPER_TINY.dim) and got.dtype == torch.float32
    np.testing.assert_allclose(got[0].numpy(), wanted, rtol=1e-3, atol=1e-4)
    assert np.abs(got[0].numpy() - frames.mean(axis=0)).max() > 0.1  # the padding is left out


@pytest.mark.slow
def test_a_long_clip_is_weighted_by_the_frames_of_its_windows(encoder):
    clip = tone(40)
    cut = 30 * SAMPLE_RATE
    first, rest = frames_of(encoder, clip.samples[:cut]), frames_of(encoder, clip.samples[cut:])
    wanted = np.concatenate([first, rest[:500]]).mean(axis=0)
    batch = encoder.collate([clip])
    assert batch.mel.shape == (2, 80, 3000) and batch.frames.tolist() == [1500, 500]
    got = encoder.encode(batch)[0].numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


def test_mel_is_whispers_own(encoder):
    clips = [tone(0.5), tone(2.0, 900)]
    own = WhisperFeatureExtractor(feature_size=80)
    wanted = own([c.samples for c in clips], sampling_rate=SAMPLE_RATE, return_tensors="np")
    np.testing.assert_array_equal(encoder.collate(clips).mel, wanted.input_features)


SILENCE = Audio(np.zeros(8000, np.float32), SAMPLE_RATE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "clips",
    [
        [tone(0.01), tone(31, 200)],
        pytest.param(
            [tone(0.4), tone(31, 200), tone(0.01), SILENCE], marks=pytest.mark.long, id="more"
        ),
    ],
)
def test_rows_are_clips_whatever_the_batch(encoder, clips):
    whole = encoder.encode(encoder.collate(clips))
    single = torch.cat([encoder.encode(encoder.collate([c])) for c in clips])
    torch.testing.assert_close(whole, single, rtol=1e-3, atol=1e-4)
    assert whole.isfinite().all() and not whole.requires_grad
    assert torch.equal(single[:1], encoder.encode(encoder.collate([clips[0]])))


def test_empty_batch_and_a_clip_without_samples(encoder):
    assert encoder.encode(encoder.collate([])).shape == (0, WHISPER_TINY.dim)
    nothing = Audio(np.zeros(0, np.float32), SAMPLE_RATE)
    assert encoder.encode(encoder.collate([nothing])).isfinite().all()


@pytest.mark.parametrize("wrong", [np.zeros(10, np.float32), "a.wav", (np.zeros(10), 16_000)])
def test_wrong_type_raises_type_error(encoder, wrong):
    with pytest.raises(TypeError, match="takes Audio"):
        encoder.collate([wrong])


def test_another_rate_is_refused(encoder):
    with pytest.raises(ValueError, match="16000 Hz, not 8000"):
        encoder.collate([Audio(np.zeros(10, np.float32), 8000)])


@pytest.fixture
def interpreter(monkeypatch):
    """The kit's worker is an interpreter of its own, not forked."""
    monkeypatch.setattr(util, "spawnv_passfds", started.SPAWN)
    worker._worker.cache_clear()
    yield
    worker._worker.cache_clear()


def test_a_pickled_encoder_collates_without_the_weights(encoder):
    pickled = pickle.dumps(encoder)
    assert len(pickled) < 500_000
    clips = [tone(1), tone(0.2)]
    alike(pickle.loads(pickled).collate(clips), encoder.collate(clips))  # noqa: S301 - our own


@pytest.mark.long  # short: the test above
def test_collate_in_a_spawned_process(encoder, interpreter):
    clips = [tone(1), tone(0.2)]
    alike(collate_in_worker(encoder, clips), encoder.collate(clips))


def alike(there, here):
    np.testing.assert_array_equal(there.mel, here.mel)
    assert (there.frames == here.frames).all() and (there.clip == here.clip).all()


def test_refusals(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="can't run in float64"):
        WhisperEncoder.load(WHISPER_TINY, CPU, torch.float64)
    local = replace(WHISPER_TINY, weights=str(tmp_path), sha256="", local=True)
    with pytest.raises(ArtefactError, match="can't be loaded as a Whisper model"):
        WhisperEncoder.load(local, CPU, torch.float32)
    with pytest.raises(ArtefactError, match="is not the file that was tested"):
        WhisperEncoder.load(replace(WHISPER_TINY, sha256="0" * 64), CPU, torch.float32)


@pytest.mark.slow
def test_own_weights_by_path(encoder):
    folder = packaged_weights(WHISPER_TINY).parent
    local = replace(WHISPER_TINY, weights=str(folder), sha256="", local=True)
    own = WhisperEncoder.load(local, CPU, torch.float32)
    batch = encoder.collate([tone(0.5)])
    assert torch.equal(own.encode(batch), encoder.encode(batch))
    assert own.weights_digest == encoder.weights_digest
