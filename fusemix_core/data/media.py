"""Decoding of items: text, images, audio, files. What comes out is what `Encoder.collate` takes."""

from __future__ import annotations

import io
import math
import os
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemix_core.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

    from fusemix_core.specs import Takes

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".jp2", ".avif"}
)
AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf"}
    | {".w64", ".rf64"}
)
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg"})

MAX_PIXELS = 178_956_970
"""The largest image that is decoded; Pillow's own limit, held here so that no setting lifts it."""
MAX_SAMPLES = 3600 * 48_000
"""The longest clip that is decoded: an hour at 48 kHz, as it is stored and as it is resampled."""
MAX_BYTES = 2 << 30
"""The largest image file, or member of an archive, that is read into memory."""
MAX_TEXT = 16 << 20
"""Bytes of the largest file or member that is one text, or the captions of one item."""
MAX_PEAK = 16.0
"""Float samples beyond this (24 dB over full scale) are not in [-1, 1] at all but integers."""
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


def normalise_text(text: str) -> str:
    """The form by which a text is known and read: Unicode NFC, no white space at either end."""
    return (text if text.isascii() else unicodedata.normalize("NFC", text)).strip()


def decode(value: Any, takes: Takes, sample_rate: int | None = None) -> Any:
    """An item as an encoder that `takes` it wants it.

    takes `text`: str (or UTF-8 bytes, or the Path of a text file) → normalised str;
    takes `image`: path, bytes or PIL image → PIL image in RGB, turned as its EXIF data say, on
    white where it is transparent;
    takes `audio`: path, bytes, `Audio` or `(samples [n] or [n, channels], rate)` → `Audio`, mono,
    at `sample_rate` (None: as it is);
    takes `file`: path → existing `Path`.

    Raises `DataError` where the value can't be read so.
    """
    if takes == "text":
        return _text(value)
    if isinstance(value, str):
        value = Path(value)
    if isinstance(value, Path) and not os.path.isfile(value):
        there = os.path.lexists(value)
        raise DataError("this is not a file" if there else "the file does not exist", path=value)
    if takes == "image":
        return _image(value)
    if takes == "audio":
        return _audio(value, sample_rate)
    if isinstance(value, Path):
        return value
    raise DataError(
        f"a file is wanted, not {_kind(value)}",
        "This encoder opens files itself: extract the archive and give the folder.",
    )


def _kind(value: Any) -> str:
    return "bytes" if isinstance(value, bytes) else f"a {type(value).__name__}"


# -- text ----------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if isinstance(value, Path):
        try:
            if os.path.isfile(value) and os.path.getsize(value) > MAX_TEXT:
                raise DataError(f"the text is larger than {MAX_TEXT >> 20} MiB", path=value)
            value = value.read_bytes()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise DataError(f"can't be read: {why}", path=value) from error
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"the text is not UTF-8: {error.reason} at byte {error.start}"
            ) from error
    if not isinstance(value, str):
        raise DataError(f"a text is wanted, not {_kind(value)}")
    text = normalise_text(value)
    if not text:
        raise DataError("empty text")
    return text


# -- images --------------------------------------------------------------------------------------


def _image(value: Any) -> Image:
    """The picture that a viewer would show, in RGB."""
    from PIL import Image

    if not isinstance(value, Path | bytes | Image.Image):
        raise DataError(f"an image is wanted, not {_kind(value)}")
    where = value if isinstance(value, Path) else None
    try:
        if isinstance(value, Image.Image):
            return _rgb(value)
        if where and where.stat().st_size > MAX_BYTES:
            raise DataError(f"the file is larger than {MAX_BYTES >> 30} GiB")
        source = io.BytesIO(value) if isinstance(value, bytes) else value
        with Image.open(source, formats=_formats()) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{width} x {height} pixels")
            return _rgb(image)
    except Image.DecompressionBombError as error:
        raise DataError(f"the image is too large: {error}", path=where) from error
    except Image.UnidentifiedImageError as error:
        raise DataError("the file is not an image that Pillow can read", path=where) from error
    except DataError as error:
        raise DataError(error.message, path=where) from error
    except Exception as error:  # decoders meet any bytes and raise anything
        raise DataError(
            f"the image is damaged: {error or type(error).__name__}", path=where
        ) from error


@cache
def _formats() -> tuple[str, ...]:
    """Pillow's formats, but for EPS: it would have a program written in the file run."""
    from PIL import Image

    Image.init()
    return tuple(form for form in Image.ID if form != "EPS")


def _rgb(image: Image) -> Image:
    from PIL import Image

    image.load()
    image = _upright(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_eight_bits(image))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image) -> Image:
    """The image turned and mirrored as its EXIF orientation says (pixels already loaded)."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data: viewers show such a picture as it is stored
        return image


def _eight_bits(image: Image) -> np.ndarray:
    """uint8 `[h, w]` of a grey image with wider values.

    16 bits: 0…65535 → 0…255. Floats within [0, 1] → 0…255. 32-bit integers within 0…255 as they
    are, within 0…65535 as 16 bits. Anything else: least → 0, greatest → 255.
    """
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError("the image holds values that are not finite")
    low, high = values.min(), values.max()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        low, high = 0.0, 65535.0
    elif image.mode == "I" and low >= 0 and high <= 65535:
        low, high = 0.0, 255.0 if high <= 255 else 65535.0
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scale = 255.0 / (high - low) if high > low else 0.0
    return np.rint((values - low) * scale).astype(np.uint8)


# -- audio ---------------------------------------------------------------------------------------


def _audio(value: Any, sample_rate: int | None) -> Audio:
    where = value if isinstance(value, Path) else None
    if isinstance(value, Path | bytes):
        samples, rate = _read_audio(value)
    elif isinstance(value, Audio):
        samples, rate = _mono(value.samples), value.rate
    elif isinstance(value, tuple) and len(value) == 2:
        samples, rate = _mono(np.asarray(value[0])), int(value[1])
    else:
        raise DataError(f"a clip is wanted, not {_kind(value)}")
    if not _RATES[0] <= rate <= _RATES[1]:
        raise DataError(f"the sample rate is {rate} Hz", path=where)
    if not len(samples):
        raise DataError("the clip is empty", path=where)
    _check_length(max(len(samples), len(samples) * (sample_rate or 0) // rate), where)
    peak = float(max(samples.max(), -samples.min()))
    if not math.isfinite(peak):
        raise DataError("the clip holds values that are not finite", path=where)
    if peak > MAX_PEAK:
        raise DataError(f"the samples reach {peak:g}; full scale is 1", path=where)
    if sample_rate is not None and rate != sample_rate:
        import soxr

        samples = soxr.resample(samples, rate, sample_rate, quality="HQ")
        rate = sample_rate
        if not len(samples):
            raise DataError(f"the clip is too short for {rate} Hz", path=where)
    return Audio(np.clip(samples, -1.0, 1.0).astype(np.float32, copy=False), rate)


def _read_audio(value: Path | bytes) -> tuple[np.ndarray, int]:
    """(mono float32 `[n]`, rate) of a sound file, read in pieces: never all its channels."""
    import soundfile

    where = value if isinstance(value, Path) else None
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
        raise DataError(
            f"the sound can't be read: {error}",
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


def _mono(samples: np.ndarray) -> np.ndarray:
    """float32 `[n]` of samples `[n]` or `[n, channels]`; integers are scaled by their range."""
    if samples.ndim not in (1, 2):
        raise DataError(f"samples must be [n] or [n, channels], not of shape {samples.shape}")
    if np.issubdtype(samples.dtype, np.integer):
        samples = samples.astype(np.float64) / -float(np.iinfo(samples.dtype).min or -1)
    return (samples.mean(axis=1) if samples.ndim == 2 else samples).astype(np.float32)
