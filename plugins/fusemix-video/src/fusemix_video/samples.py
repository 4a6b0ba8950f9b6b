"""Small videos, made up, for the conformance kit and for trying things out."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

MILLISECOND = Fraction(1, 1000)


def moving_square(
    frames: int,
    size: tuple[int, int] = (64, 48),
    colour: Sequence[int] = (255, 0, 0),
    ground: Sequence[int] = (0, 0, 0),
) -> list[np.ndarray]:
    """uint8 `[h, w, 3]` pictures of a square that goes from left to right."""
    width, height = size
    side = height // 2
    pictures = []
    for i in range(frames):
        picture = np.full((height, width, 3), ground, np.uint8)
        left = (width - side) * i // max(frames - 1, 1)
        picture[side // 2 : side // 2 + side, left : left + side] = colour
        pictures.append(picture)
    return pictures


def write_video(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    rate: int = 10,
    times: Sequence[int] | None = None,
    codec: str = "mpeg4",
    keyframes: int = 12,
) -> Path:
    """A video file of pictures uint8 `[h, w, 3]`; returns the path.

    times: milliseconds at which each is shown, instead of `rate` pictures a second.
    keyframes: their distance.
    """
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream), f"{codec} is not a codec of videos"
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = keyframes
        stream.codec_context.bit_rate = 2_000_000
        if times is not None:
            stream.time_base = stream.codec_context.time_base = MILLISECOND
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[i], MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@lru_cache(maxsize=1)
def sample_videos() -> tuple[Path, ...]:
    """Eight different videos in a temporary folder that goes when Python ends.

    Short and longer, one of a single frame, wide and tall, of uneven frame rate, in three kinds of
    container.
    """
    folder = Path(tempfile.mkdtemp(prefix="fusemix-video-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    red, green, blue, white = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
    uneven = [0, 40, 80, 1000, 1040, 3000]
    return (
        write_video(folder / "red.mp4", moving_square(12)),
        write_video(folder / "green.mkv", moving_square(30, colour=green)),
        write_video(folder / "blue.avi", moving_square(9, (80, 64), blue)),
        write_video(folder / "one.mp4", moving_square(1, colour=white, ground=blue)),
        write_video(folder / "three.mkv", moving_square(3, (32, 32), red, green)),
        write_video(folder / "tall.mp4", moving_square(10, (48, 96), white, red)),
        write_video(folder / "wide.mp4", moving_square(10, (96, 48), green, blue)),
        write_video(folder / "uneven.mkv", moving_square(6, ground=white), times=uneven),
    )
