"""Values of decoded items, for every kind of image and sound that people have."""

import io
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from fusemix_core.data import Audio, decode, normalise_text
from fusemix_core.data.media import audio
from fusemix_core.errors import DataError


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(value) -> np.ndarray:
    image = decode(value, "image")
    assert image.mode == "RGB"
    return np.asarray(image)


# -- text ----------------------------------------------------------------------------------------


def test_text_is_composed_and_stripped():
    decomposed = unicodedata.normalize("NFD", " Fjällräven \n")
    assert decode(decomposed, "text") == normalise_text(decomposed) == "Fjällräven"
    assert decode("\ufeffcafé".encode(), "text") == "café"


@pytest.mark.parametrize("empty", ["", "  \n\t", "\u3000", b""])
def test_empty_text_is_an_error(empty):
    with pytest.raises(DataError) as error:
        decode(empty, "text")
    assert error.value.message == "empty text"


def test_a_text_has_a_size_that_texts_have(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x" * (17 << 20))
    with pytest.raises(DataError, match="larger than 16 MiB"):
        decode(tmp_path / "a.txt", "text")


def test_text_that_is_not_utf8(tmp_path):
    (tmp_path / "a.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        decode(tmp_path / "a.txt", "text")


# -- images --------------------------------------------------------------------------------------

RGB = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def test_rgb_from_path_bytes_and_image(tmp_path):
    image = Image.fromarray(RGB)
    path = tmp_path / "a.png"
    image.save(path)
    for value in (str(path), path, path.read_bytes(), image):
        np.testing.assert_array_equal(pixels(value), RGB)


# EXIF 2.32, 4.6.4: where row 0 and column 0 of the stored pixels are in the picture.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(RGB), exif=exif)
    np.testing.assert_array_equal(pixels(data), UPRIGHT[orientation](RGB))


def test_palette():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    np.testing.assert_array_equal(pixels(encoded(image)), [[[10, 20, 30], [200, 100, 50]]])


def test_transparent_palette_entry_becomes_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    for form in ("PNG", "GIF"):
        data = encoded(image, form, transparency=0)
        np.testing.assert_array_equal(pixels(data), [[[255, 255, 255], [200, 100, 50]]])


def test_alpha_is_composited_on_white():
    values = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [200, 0, 0, 51]]], np.uint8)
    expected = np.rint(values[..., :3] * (values[..., 3:] / 255) + 255 - values[..., 3:])
    got = pixels(encoded(Image.fromarray(values)))
    np.testing.assert_allclose(got, expected, atol=1)


def test_grey_with_alpha_and_one_bit():
    grey = np.array([[[100, 255], [100, 0]]], np.uint8)
    got = pixels(encoded(Image.fromarray(grey, "LA")))
    np.testing.assert_array_equal(got, [[[100] * 3, [255] * 3]])
    bits = Image.new("1", (2, 1))
    bits.putdata([0, 1])
    np.testing.assert_array_equal(pixels(encoded(bits)), [[[0] * 3, [255] * 3]])
    flat = np.array([[0, 7, 255]], np.uint8)
    got = pixels(encoded(Image.fromarray(flat)))
    np.testing.assert_array_equal(got, np.repeat(flat[..., None], 3, 2))


def test_cmyk_jpeg():
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta + yellow: red
    got = pixels(encoded(ink, "JPEG", quality=100)).mean((0, 1))
    np.testing.assert_allclose(got, [255, 0, 0], atol=4)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_clipped(form):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    got = pixels(encoded(Image.fromarray(values), form))
    np.testing.assert_array_equal(got[0, :, 0], [0, 1, 128, 255])
    np.testing.assert_array_equal(got[..., 0], got[..., 2])


def test_wide_integers_and_floats():
    as_image = Image.fromarray
    np.testing.assert_array_equal(
        pixels(as_image(np.array([[0, 100, 255]], np.int32)))[0, :, 0], [0, 100, 255]
    )
    np.testing.assert_array_equal(
        pixels(as_image(np.array([[-1000, 0, 1000]], np.int32)))[0, :, 0], [0, 128, 255]
    )
    np.testing.assert_array_equal(
        pixels(as_image(np.array([[0, 0.5, 1]], np.float32)))[0, :, 0], [0, 128, 255]
    )
    with pytest.raises(DataError, match="not finite"):
        pixels(as_image(np.array([[0, np.nan]], np.float32)))


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (2, 2), c) for c in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(pixels(data)[0, 0], [255, 0, 0])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_images_are_data_errors(form):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), form)
    with pytest.raises(DataError):
        decode(data[: len(data) // 2], "image")
    rng = np.random.default_rng(1)
    for _ in range(30):  # hostile bytes: a picture or a DataError, nothing else
        broken = bytearray(data)
        for at in rng.integers(0, min(len(data), 400), 8):
            broken[at] = rng.integers(256)
        try:
            assert decode(bytes(broken), "image").mode == "RGB"
        except DataError as error:
            assert error.message


def test_not_an_image_and_missing(tmp_path):
    (tmp_path / "a.jpg").write_text("<html>")
    with pytest.raises(DataError, match="not an image") as error:
        decode(tmp_path / "a.jpg", "image")
    assert error.value.path == tmp_path / "a.jpg"
    with pytest.raises(DataError, match="does not exist"):
        decode(tmp_path / "b.jpg", "image")


def test_decompression_bomb():
    import struct
    import zlib

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with pytest.raises(DataError, match="too large"):
            decode(bomb, "image")
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    with pytest.raises(DataError, match="too large"):
        decode(bomb, "image")


def test_a_picture_that_is_a_program_is_not_run(monkeypatch):
    """EPS is PostScript: Pillow has Ghostscript run it, where that is installed."""
    from PIL import EpsImagePlugin

    ran = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: ran.append(a))
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(DataError, match="not an image"):
        decode(program, "image")
    assert not ran


def test_a_file_too_large_to_be_a_picture_is_not_read(tmp_path):
    with open(tmp_path / "a.webp", "wb") as file:
        file.write(b"RIFF\0\0\0\0WEBP")
        file.truncate(3 << 30)
    with pytest.raises(DataError, match="larger than 2 GiB"):
        decode(tmp_path / "a.webp", "image")


def test_what_is_there_but_no_file_is_said(tmp_path):
    with pytest.raises(DataError, match="not a file"):
        decode(tmp_path, "image")
    with pytest.raises(DataError, match="does not exist"):
        decode("x" * 5000, "image")


# -- audio ---------------------------------------------------------------------------------------


def tone(rate: int, hertz: float = 440, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize(
    ("form", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "FLOAT"),
        ("FLAC", "PCM_16"),
        ("AIFF", "PCM_16"),
    ],
)
def test_channels_are_averaged(tmp_path, form, subtype):
    left, right = tone(16000), tone(16000, 880)
    path = tmp_path / "a.bin"
    soundfile.write(path, np.stack([left, right], 1), 16000, format=form, subtype=subtype)
    for value in (path, str(path), path.read_bytes()):
        clip = decode(value, "audio")
        assert clip.rate == 16000 and clip.samples.dtype == np.float32
        np.testing.assert_allclose(clip.samples, (left + right) / 2, atol=1e-4)


@pytest.mark.parametrize(("form", "subtype"), [("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")])
def test_lossy_formats(tmp_path, form, subtype):
    path = tmp_path / "a.bin"
    soundfile.write(path, tone(22050), 22050, format=form, subtype=subtype)
    clip = decode(path, "audio", 22050)
    spectrum = np.abs(np.fft.rfft(clip.samples * np.hanning(len(clip.samples))))
    peak = spectrum.argmax() * 22050 / len(clip.samples)
    assert abs(peak - 440) < 5


@pytest.mark.parametrize(("rate", "target"), [(44100, 16000), (8000, 48000), (16000, 16000)])
def test_resampling_keeps_the_tone(rate, target):
    clip = decode((tone(rate), rate), "audio", target)
    assert clip.rate == target and abs(len(clip.samples) - target // 2) <= 1
    inner = slice(target // 10, -target // 10)
    expected = tone(target)[: len(clip.samples)]
    np.testing.assert_allclose(clip.samples[inner], expected[inner], atol=2e-3)


def test_long_clip_is_read_whole(tmp_path):
    path = tmp_path / "long.wav"
    noise = np.random.default_rng(0).uniform(-1, 1, (1 << 20) + 12345)
    soundfile.write(path, noise, 8000, subtype="PCM_16")
    np.testing.assert_allclose(decode(path, "audio").samples, noise, atol=1e-4)


def test_arrays(tmp_path):
    stereo = np.array([[0.5, -0.5], [1.0, 0.0]])
    np.testing.assert_array_equal(decode((stereo, 8000), "audio").samples, [0, 0.5])
    integers = np.array([0, 16384, -32768], np.int16)
    np.testing.assert_array_equal(decode((integers, 8000), "audio").samples, [0, 0.5, -1])
    clip = decode(Audio(np.array([2.0, -0.5]), 8000), "audio")
    np.testing.assert_array_equal(clip.samples, [1, -0.5])


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(0), "empty"),
        (np.array([0, np.nan]), "not finite"),
        (np.array([0, np.inf]), "not finite"),
        (np.array([0.0, 20000.0]), "full scale"),
        (np.zeros((2, 2, 2)), "shape"),
    ],
)
def test_unusable_clips(samples, message):
    with pytest.raises(DataError, match=message):
        decode((samples, 16000), "audio")


def test_a_clip_has_a_length_and_a_rate_that_sounds_have(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="rate is 1 Hz"):
        decode((np.zeros(8), 1), "audio", 48_000)
    monkeypatch.setattr(audio, "MAX_SAMPLES", 1000)
    for clip in ((np.zeros(1001), 8000), (np.zeros(400), 8000)):
        with pytest.raises(DataError, match="more than 1,000 samples"):
            decode(clip, "audio", 48_000)
    soundfile.write(tmp_path / "a.wav", np.zeros((1001, 2)), 8000)
    with pytest.raises(DataError, match="Cut it into pieces") as error:
        decode(tmp_path / "a.wav", "audio")
    assert error.value.path == tmp_path / "a.wav"


def test_empty_truncated_and_foreign_sound_files(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 16000)
    with pytest.raises(DataError, match="empty"):
        decode(tmp_path / "a.wav", "audio")
    with pytest.raises(DataError, match="can't be read") as error:
        decode(b"not a sound", "audio")
    assert "ffmpeg" in error.value.hint


def test_files(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    assert decode(str(tmp_path / "a.mp4"), "file") == Path(tmp_path / "a.mp4")
    with pytest.raises(DataError, match="does not exist"):
        decode(tmp_path / "b.mp4", "file")
    with pytest.raises(DataError) as error:
        decode(b"x", "file")
    assert "extract" in error.value.hint


@pytest.mark.parametrize(("value", "takes"), [(3, "text"), (3, "image"), (3, "audio"), (3, "file")])
def test_wrong_types(value, takes):
    with pytest.raises(DataError, match="wanted"):
        decode(value, takes)
