"""Films as moments: a frame and what is heard around it; and the windows of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from fusemix_video.decoding import Video
from fusemix_video.sampling import Sampling
from PIL import Image

from fusemix_core.data.media.audio import Audio, read_audio

LONGEST = 5.0
"""Seconds around a moment that are heard, at most."""


@dataclass(frozen=True)
class Film:
    """A film as moments in order of time.

    Attributes:
        frames: an RGB image for each moment, the square in its middle.
        sounds: what is heard around each moment; None if the film is silent.
        times: seconds of each moment from the start.
    """

    frames: list[Image.Image]
    sounds: list[Audio] | None
    times: list[float]


def read_film(path: Path, moments: int, rate: int | None) -> Film:
    """The moments of a file: the centres of equal parts of it.

    Args:
        path: of a video.
        moments: how many.
        rate: of the sound, in Hz; None reads none.

    Raises:
        DataError: the file can't be decoded.
    """
    with Video(path) as video:
        times = Sampling(moments).times(video.duration)
        frames = [square(frame) for frame in video.pictures(times)]
        part = video.duration / moments
    sounds = None if rate is None or not _has_sound(path) else read_audio(path, rate)
    if sounds is None:
        return Film(frames, None, times)
    half = max(1, round(min(part, LONGEST) * sounds.rate / 2))
    heard = [_around(sounds, round(time * sounds.rate), half) for time in times]
    return Film(frames, heard, times)


def square(image: Image.Image) -> Image.Image:
    """The largest square in the middle of an image."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def window(frame: Image.Image, number: int, side: int) -> Image.Image:
    """A window of a frame, of `side` · `side` that cover it, numbered row by row."""
    row, column = divmod(number, side)
    edges = [round(i * frame.width / side) for i in range(side + 1)]
    return frame.crop((edges[column], edges[row], edges[column + 1], edges[row + 1]))


def windows(frame: Image.Image, side: int) -> list[Image.Image]:
    """All windows of a frame, row by row."""
    return [window(frame, number, side) for number in range(side**2)]


def write_film(
    path: Path, frames: Sequence[np.ndarray], sounds: Sequence[np.ndarray], rate: int
) -> Path:
    """Write a film of one frame a second, uint8 `[h, w, 3]` each, and float32 `[rate]` of sound to
    each; returns the path."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as container:
        shown = container.add_stream("mpeg4", rate=1)
        heard = container.add_stream("aac", rate=rate)
        assert isinstance(shown, av.VideoStream) and isinstance(heard, av.AudioStream)
        shown.width, shown.height, shown.pix_fmt = width, height, "yuv420p"
        shown.codec_context.bit_rate = 4_000_000
        heard.layout = "mono"
        for frame in frames:
            container.mux(shown.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(shown.encode())
        wave = np.concatenate([np.asarray(sound, np.float32) for sound in sounds])
        piece = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        piece.sample_rate, piece.pts = rate, 0
        container.mux(heard.encode(piece))
        container.mux(heard.encode())
    return path


def _has_sound(path: Path) -> bool:
    with av.open(str(path)) as container:
        return bool(container.streams.audio)


def _around(sound: Audio, centre: int, half: int) -> Audio:
    """Samples around one; silence beyond the ends."""
    start = centre - half
    found = np.zeros(2 * half, np.float32)
    first, last = max(0, start), min(len(sound.samples), start + 2 * half)
    if last > first:
        found[first - start : last - start] = sound.samples[first:last]
    return Audio(found, sound.rate)
