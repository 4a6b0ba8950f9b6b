"""fusemix-video: which frames are taken, and that they are the right ones in every container."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from fusemix_video.decoding import Video
from fusemix_video.samples import moving_square, sample_videos, write_video
from fusemix_video.sampling import Sampling, split_name
from PIL import Image

from fusemix_core.errors import ConfigError, DataError

RATE, LENGTH = 25, 150
CONTAINERS = [
    ("short-gop.mp4", "mpeg4", 12),
    ("one-keyframe.mkv", "mpeg4", 250),
    ("riff.avi", "mpeg4", 30),
    ("web.webm", "libvpx", 40),
    ("b-frames.mp4", "libx264", 50),
    ("b-frames.mkv", "libx264", 30),
    ("broadcast.ts", "mpeg2video", 12),
]


def numbered(i: int) -> np.ndarray:
    """uint8 `[32, 64, 3]`: the bits of i as black and white columns."""
    bits = [255 * (i >> b & 1) for b in range(8)]
    return np.repeat(np.repeat(np.array(bits, np.uint8), 8)[None, :, None], 32, 0).repeat(3, 2)


def number(picture: Image.Image) -> int:
    columns = np.asarray(picture.convert("L"))[16, 4::8]
    return sum(1 << b for b, value in enumerate(columns) if value > 128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("videos")


def seen(path: Path, times: list[float]) -> list[int]:
    with Video(path) as video:
        return [number(p) for p in video.pictures(times)]


# -- times -----------------------------------------------------------------------------------------


def test_uniform_times_are_the_centres_of_equal_parts():
    assert Sampling(4).times(8.0) == [1.0, 3.0, 5.0, 7.0]
    assert Sampling(3).times(0.0) == [0.0, 0.0, 0.0]


def test_times_by_rate():
    assert Sampling(rate=2).times(1.6) == [0.25, 0.75, 1.25]
    assert Sampling(rate=0.5).times(0.2) == [0.2]  # one at least, within the video
    assert len(Sampling(rate=1).times(3600)) == 3600


@pytest.mark.parametrize(
    ("name", "image", "options"),
    [
        ("dinov2-base", "dinov2-base", {"frames": 8}),
        ("dinov2-base:16", "dinov2-base", {"frames": 16}),
        ("timm:resnet50", "timm:resnet50", {"frames": 8}),
        ("timm:resnet50.a1_in1k:4", "timm:resnet50.a1_in1k", {"frames": 4}),
        ("lite0:0.5fps", "lite0", {"rate": 0.5}),
        ("./my.py:Mine:2fps", "./my.py:Mine", {"rate": 2.0}),
    ],
)
def test_names(name, image, options):
    found, sampling = split_name(name)
    assert found == image and sampling.options() == options
    assert Sampling.of({**options, "image": "other"}) == sampling


@pytest.mark.parametrize("name", ["lite0:0", "lite0:0fps", "lite0:1.5"])
def test_numbers_that_are_none_of_frames(name):
    with pytest.raises(ConfigError, match="asks for") as error:
        split_name(name)
    assert "video:lite0:16" in error.value.hint


# -- frames ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "codec", "keyframes"), CONTAINERS)
def test_the_frame_at_a_time_is_the_one_that_is_shown(folder, name, codec, keyframes):
    path = folder / name
    frames = [numbered(i) for i in range(LENGTH)]
    write_video(path, frames, rate=RATE, codec=codec, keyframes=keyframes)
    with Video(path) as video:
        assert video.duration == pytest.approx(LENGTH / RATE)
    for count in (1, 3, 8, 40):
        times = Sampling(count).times(LENGTH / RATE)
        assert seen(path, times) == [int(t * RATE + 1e-9) for t in times]


def test_jumps_spare_most_of_the_decoding(folder, monkeypatch):
    path = write_video(folder / "long.mp4", [numbered(i % 256) for i in range(500)], rate=RATE)
    decoded = 0
    original = Video._decoded

    def counted(self):
        nonlocal decoded
        decoded += 1
        return original(self)

    monkeypatch.setattr(Video, "_decoded", counted)
    assert len(seen(path, Sampling(4).times(20.0))) == 4
    assert decoded < 4 * 14
    decoded = 0
    assert len(seen(path, Sampling(rate=10).times(20.0))) == 200
    assert decoded < 600  # jumps to behind although it was don't go on for ever


def test_variable_frame_rate(folder):
    times = [0, 40, 80, 1000, 1040, 3000, 3040]
    for name in ("uneven.mkv", "uneven.mp4"):
        path = write_video(folder / name, [numbered(i) for i in range(7)], times=times)
        assert seen(path, [0.05, 0.5, 0.99, 1.0, 2.5, 3.01]) == [1, 2, 2, 3, 4, 5]


def test_a_video_of_one_frame_repeats_it(folder):
    path = write_video(folder / "one.mp4", [numbered(77)])
    with Video(path) as video:
        assert [number(p) for p in video.pictures(Sampling(4).times(video.duration))] == [77] * 4


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [((1, 0, 0, 1), "tl"), ((0, 1, -1, 0), "tr"), ((-1, 0, 0, -1), "br"), ((0, -1, 1, 0), "bl")],
)
def test_rotation_as_a_phone_writes_it(folder, matrix, corner):
    """QuickTime's matrix (a, b, c, d): x' = ax + cy, y' = bx + dy, with y downwards."""
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:24, :24] = 255
    path = write_video(folder / "phone.mp4", [picture] * 3)
    data = bytearray(path.read_bytes())
    at, (a, b, c, d) = data.find(b"tkhd") + 44, (v << 16 for v in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    with Video(path) as video:
        (shown,) = video.pictures([0.1])
    assert shown.size == ((96, 64) if matrix[0] else (64, 96))
    assert bright_corner(shown) == corner


def bright_corner(picture: Image.Image) -> str:
    grey = np.asarray(picture.convert("L"))
    corners = {"tl": grey[5, 5], "tr": grey[5, -6], "bl": grey[-6, 5], "br": grey[-6, -6]}
    return max(corners, key=corners.get)


def test_a_stream_that_does_not_say_how_long_it_is(folder):
    path = folder / "live.mkv"
    with av.open(str(path), "w", options={"live": "1"}) as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * 9), np.int16), layout="mono")
        silence.sample_rate = 8000
        container.mux(sound.encode(silence))
        for i in range(50):
            frame = av.VideoFrame.from_ndarray(numbered(i), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with Video(path) as video:
        assert video.duration == pytest.approx(2.0, abs=0.05)
        assert [number(p) for p in video.pictures([0.5, 1.9])] == [12, 47]


# -- files that are no videos ----------------------------------------------------------------------


def test_sound_alone_is_no_video(folder):
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    with pytest.raises(DataError, match="sound.wav: the file contains no video, but audio"):
        Video(folder / "sound.wav")


@pytest.mark.parametrize("content", [b"", b"hello", bytes(1000)])
def test_what_is_no_video_at_all(folder, content):
    (folder / "other.mp4").write_bytes(content)
    with pytest.raises(DataError, match="can't be decoded: Invalid data"):
        Video(folder / "other.mp4")


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_a_file_that_was_cut_short(folder, suffix):
    codec = "libvpx" if suffix == "webm" else "mpeg4"
    whole = write_video(folder / f"whole.{suffix}", moving_square(100), rate=RATE, codec=codec)
    cut = folder / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(DataError, match=r"ends after .* as it says: it is damaged or cut short"):
        seen(cut, Sampling(8).times(4.0))


def test_damage_in_the_middle(folder):
    whole = write_video(folder / "good.mp4", moving_square(100, (320, 240)), rate=RATE)
    data = bytearray(whole.read_bytes())
    noise = np.random.default_rng(0).bytes(len(data))
    data[len(data) // 3 : len(data) // 2] = noise[len(data) // 3 : len(data) // 2]
    whole.write_bytes(data)
    with pytest.raises(DataError, match=r"good.mp4: the video can't be decoded"):
        seen(whole, Sampling(50).times(4.0))


def test_samples_are_videos_and_differ():
    first = set()
    for path in sample_videos():
        with Video(path) as video:
            first.add(next(video.pictures([video.duration / 2])).tobytes())
    assert len(first) == len(sample_videos()) == 8
