"""The medium `audio`."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemix_core.data.foreign import HEAD, described, head_of
from fusemix_core.data.media.av import needs_av, read_by_av
from fusemix_core.data.media.base import Medium, kind
from fusemix_core.data.media.in_python import as_array, is_array
from fusemix_core.errors import DataError

if TYPE_CHECKING:
    from fusemix_core.specs import EncoderSpec

MAX_SAMPLES = 3600 * 48_000
"""The longest clip that is decoded: an hour at 48 kHz, as it is stored and as it is resampled."""
MAX_PEAK = 16.0
"""Float samples beyond this (24 dB over full scale) are not in [-1, 1] at all but integers."""
MAX_CHANNELS = 32
_SILENT = 1e-3
"""60 dB below full scale."""
_RATES = (100, 10_000_000)
"""Hertz. A sound with a rate beyond these has a damaged header."""
_VALUES = 1 << 20
_UNKNOWN = 1 << 62
"""Frames. libsndfile gives more where a file does not say how long it is."""


@dataclass(frozen=True, eq=False)
class Audio:
    """A waveform: `samples` float32 `[n]`, mono, in [-1, 1]; `rate` in hertz."""

    samples: np.ndarray
    rate: int


class AudioMedium(Medium):
    """A path, bytes, `Audio` or `(samples [n], [n, channels] or [channels, n], rate)` → `Audio`,
    mono, at the sample rate (None: as it is)."""

    name = "audio"
    sampled = True

    def decode(self, value: Any, sample_rate: int | None = None) -> Audio:
        return read_audio(self.existing(value), sample_rate)

    def blank(self, item: Audio) -> str:
        return "silent" if np.abs(item.samples).max() < _SILENT else ""

    def pack(self, value: Any) -> bytes:
        """As float WAV."""
        import soundfile

        buffer = io.BytesIO()
        clip = self.decode(value)
        soundfile.write(buffer, clip.samples, clip.rate, format="WAV", subtype="FLOAT")
        return buffer.getvalue()

    def usual_length(self, spec: EncoderSpec) -> int:
        return 10 * (spec.sample_rate or 16_000)

    def length(self, item: Audio, spec: EncoderSpec) -> int:
        """Samples."""
        return len(item.samples)

    def example(self, count: int = 1) -> list[str]:
        return ["sound.wav", "speech.flac"][:count]

    def samples(self, spec: EncoderSpec) -> list[Audio]:
        rate = spec.sample_rate or 16_000
        seconds = [0.2, 0.5, 1, 2, 0.3, 1.5, 2.5, 0.7]
        return [
            _sound(np.sin(2 * np.pi * 110 * (i + 1) * np.arange(int(s * rate)) / rate), rate)
            for i, s in enumerate(seconds)
        ]

    def edges(self, spec: EncoderSpec) -> dict[str, Audio]:
        rate = spec.sample_rate or 16_000
        noise = np.random.default_rng(1)
        return {
            "one sample": _sound(np.full(1, 0.5), rate),
            "ten milliseconds": _sound(noise.uniform(-1, 1, rate // 100), rate),
            "silence": _sound(np.zeros(rate), rate),
            "a constant": _sound(np.full(rate, 0.7), rate),
            "full scale": _sound(np.sign(np.sin(np.arange(rate) / 7)), rate),
            "forty seconds": _sound(noise.uniform(-0.1, 0.1, 40 * rate), rate),
        }

    def wrong(self) -> list[Any]:
        return ["sound.wav"]


def _sound(values: np.ndarray, rate: int) -> Audio:
    return Audio(values.astype(np.float32), rate)


def read_audio(value: Any, sample_rate: int | None) -> Audio:
    where = value if isinstance(value, Path) else None
    if isinstance(value, Path | bytes):
        samples, rate = _read_audio(value)
    elif isinstance(value, Audio):
        samples, rate = _mono(value.samples), value.rate
    elif isinstance(value, tuple) and len(value) == 2:
        rate = _rate(*value)
        samples = _mono(as_array(value[0]))
    else:
        raise DataError(
            f"a clip is wanted, not {kind(value)}",
            "Give (samples, rate)." if is_array(value) else "",
        )
    if not _RATES[0] <= rate <= _RATES[1]:
        raise DataError(f"the sample rate is {rate} Hz", path=where)
    if not len(samples):
        raise DataError("the clip is empty", path=where)
    _check_length(max(len(samples), len(samples) * (sample_rate or 0) // rate), where)
    peak = float(max(samples.max(), -samples.min()))
    if not math.isfinite(peak):
        raise DataError("the clip contains values that are not finite", path=where)
    if peak > MAX_PEAK:
        raise DataError(f"the samples reach {peak:g}; full scale is 1", path=where)
    if sample_rate is not None and rate != sample_rate:
        import soxr

        samples = soxr.resample(samples, rate, sample_rate, quality="HQ")
        rate = sample_rate
        if not len(samples):
            raise DataError(f"the clip is too short for {rate} Hz", path=where)
    return Audio(np.clip(samples, -1.0, 1.0).astype(np.float32, copy=False), rate)


def _rate(samples: Any, rate: Any) -> int:
    """The rate of a (samples, rate) pair."""
    if np.ndim(samples) == 0 and np.ndim(rate):
        raise DataError("the clip is (rate, samples)", "Give (samples, rate), in this order.")
    try:
        return int(rate)
    except (TypeError, ValueError) as error:
        raise DataError(f"the sample rate is {kind(rate)}, not a number") from error


def _read_audio(value: Path | bytes) -> tuple[np.ndarray, int]:
    """(mono float32 `[n]`, rate) of a sound file, read in pieces: never all its channels."""
    import soundfile

    where = value if isinstance(value, Path) else None
    head = value[:HEAD] if isinstance(value, bytes) else head_of(value)
    if needs_av(head):
        return read_by_av(value, head, MAX_CHANNELS, lambda samples: _check_length(samples, where))
    try:
        with soundfile.SoundFile(io.BytesIO(value) if isinstance(value, bytes) else value) as file:
            if file.frames < _UNKNOWN:
                _check_length(file.frames, where)
            pieces, length = [], 0
            most = max(_VALUES // file.channels, 1)
            while len(piece := file.read(most, dtype="float32", always_2d=True)):
                pieces.append(piece.mean(axis=1))
                length += len(piece)
                _check_length(length, where)
            samples = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
            return samples, file.samplerate
    except DataError:
        raise
    except (soundfile.SoundFileError, OSError, RuntimeError, ValueError) as error:
        found = described(head)
        raise DataError(
            f"the sound can't be read: {f'it is {found}' if found else error}",
            "fusemix reads what libsndfile does (WAV, FLAC, Ogg, MP3, …); convert it with ffmpeg.",
            path=where,
        ) from error


def _check_length(samples: int, where: Path | None) -> None:
    if samples > MAX_SAMPLES:
        raise DataError(
            f"the sound has more than {MAX_SAMPLES:,} samples (an hour at 48 kHz)",
            "Cut it into pieces, one a row.",
            path=where,
        )


def _mono(samples: Any) -> np.ndarray:
    """float32 `[n]` of samples `[n]`, `[n, channels]` or `[channels, n]`.

    The longer axis is time, the first one if both are alike. Integers are scaled by their range,
    unsigned ones about its middle.
    """
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2):
        raise DataError(f"samples must be [n] or [n, channels], not of shape {samples.shape}")
    if samples.dtype.kind not in "iuf":
        raise DataError(f"samples must be numbers, not {samples.dtype}")
    if samples.ndim == 2:
        shape = samples.shape
        if 0 < shape[0] < shape[1]:  # as torchaudio and torchcodec give it
            samples = samples.T
        if samples.shape[1] > MAX_CHANNELS:
            raise DataError(
                f"samples of shape {shape} would have {samples.shape[1]} channels",
                "The order is [n, channels] (or [channels, n]): time is the longer axis, and there "
                f"are {MAX_CHANNELS} channels at most.",
            )
    if samples.dtype.kind in "iu":
        samples = _scaled(samples)
    return (samples.mean(axis=1) if samples.ndim == 2 else samples).astype(np.float32)


def _scaled(samples: np.ndarray) -> np.ndarray:
    """float64 in [-1, 1] of integer samples."""
    if samples.dtype.itemsize > 4:
        raise DataError(
            f"samples of {samples.dtype} have no full scale",
            "Give int16 or int32 as a decoder does, or floats in [-1, 1].",
        )
    half = float(1 << (8 * samples.dtype.itemsize - 1))
    middle = half if samples.dtype.kind == "u" else 0.0
    return (samples.astype(np.float64) - middle) / half
