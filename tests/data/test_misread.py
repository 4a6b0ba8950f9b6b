"""Files and arrays whose values are easily misread: narrow values in wide files, other orders of
axes, integers, and files that are not what their names say."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from fusemix_core.data import Audio, decode
from fusemix_core.data.media import extras, medium
from fusemix_core.errors import DataError
from fusemix_core.project import how_to_install

CASES = Path(__file__).parent / "cases" / "08-png-12-bit"


def png(values: np.ndarray, significant: int | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint16)).save(buffer, "PNG")
    data = buffer.getvalue()
    if significant is None:
        return data
    body = b"sBIT" + bytes([significant])
    chunk = struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]  # behind IHDR


def grey(value) -> np.ndarray:
    image = decode(value, "image")
    assert image.mode == "RGB"
    return np.asarray(image)[..., 0]


def ramp(high: int) -> np.ndarray:
    return np.linspace(0, high, 64 * 64).round().reshape(64, 64)


# -- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.name for path in CASES.glob("*.[pt]*[gf]")))
def test_files_with_fewer_bits_than_they_could_have_are_seen(name):
    values = grey(CASES / name)
    with Image.open(CASES / name) as image:
        there = len(np.unique(np.asarray(image)))
    assert len(np.unique(values)) >= min(there, 200)
    assert values.min() <= 8 and values.max() >= 247


@pytest.mark.parametrize("bits", range(8, 17))
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_files_are_read_by_the_bits_that_are_used(bits, form):
    high = (1 << bits) - 1
    buffer = io.BytesIO()
    Image.fromarray(ramp(high).astype(np.uint16)).save(buffer, form)
    np.testing.assert_array_equal(grey(buffer.getvalue()), np.rint(ramp(high) * 255 / high))


def test_the_range_is_a_power_of_two_and_8_bits_at_least():
    values = np.array([[0, 1000, 3000]])
    np.testing.assert_array_equal(grey(png(values)), np.rint(values * 255 / 4095))
    np.testing.assert_array_equal(grey(png(np.array([[0, 3, 100]]))), [[0, 3, 100]])
    np.testing.assert_array_equal(grey(png(np.zeros((2, 2)))), np.zeros((2, 2)))


def test_signed_values_stored_with_an_offset():
    np.testing.assert_array_equal(grey(png(ramp(4095) + 32768)), np.rint(ramp(4095) * 255 / 4095))
    np.testing.assert_array_equal(grey(png(np.full((2, 2), 32768))), np.zeros((2, 2)))


def test_a_png_may_say_how_many_bits_count():
    values = np.array([[0, 501, 901]])
    np.testing.assert_array_equal(grey(png(values, 12)), np.rint(values * 255 / 4095))
    np.testing.assert_array_equal(grey(png(values, 14)), np.rint(values * 255 / 16383))
    shifted = np.array([[0, 160, 3200]])  # of 12 bits, moved up to fill 16
    np.testing.assert_array_equal(grey(png(shifted, 12)), np.rint(shifted * 255 / 65535))
    np.testing.assert_array_equal(grey(png(shifted * 20, 12)), np.rint(shifted * 20 * 255 / 65535))


def test_wide_images_are_read_alike_from_a_file_bytes_and_pillow(tmp_path):
    (tmp_path / "a.png").write_bytes(png(ramp(4095)))
    expected = np.rint(ramp(4095) * 255 / 4095)
    for value in (tmp_path / "a.png", png(ramp(4095)), Image.fromarray(ramp(4095).astype("u2"))):
        np.testing.assert_array_equal(grey(value), expected)


def colour_png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a colour `[h, w, 3 or 4]`, which Pillow doesn't write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    h, w, c = values.shape
    lines = b"".join(b"\0" + line.tobytes() for line in values.astype(">u2"))
    header = struct.pack(">IIBBBBB", w, h, 16, 2 if c == 3 else 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def colour_tiff(values: np.ndarray, order: str) -> bytes:
    """A TIFF of one strip and 16 bits a colour `[h, w, 3]`."""
    h, w, _ = values.shape
    data = values.astype(f"{order}u2").tobytes()
    facts = [(256, 3, 1, w), (257, 3, 1, h), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2),
             (273, 4, 1, 14), (277, 3, 1, 3), (278, 3, 1, h), (279, 4, 1, len(data))]  # fmt: skip
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 14 + len(data))
    directory = struct.pack(f"{order}H", len(facts))
    for tag, kind, count, value in facts:
        form = "HHIHxx" if kind == 3 and count == 1 else "HHII"
        directory += struct.pack(order + form, tag, kind, count, value)
    bits = struct.pack(f"{order}3H", 16, 16, 16)
    return head + bits + data + directory + b"\0" * 4


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("form", ["png", "tiff <", "tiff >", "png with alpha"])
def test_colours_of_16_bits_are_read_by_the_bits_that_are_used(bits, form):
    high = (1 << bits) - 1
    values = np.linspace(0, high, 24 * 24 * 3).round().astype(np.uint16).reshape(24, 24, 3)
    if form == "png":
        data = colour_png(values)
    elif form == "png with alpha":
        data = colour_png(np.concatenate([values, np.full((24, 24, 1), high, np.uint16)], axis=2))
    else:
        data = colour_tiff(values, form[-1])
    image = decode(data, "image")
    expected = values >> 8 if bits == 16 else np.rint(values * 255.0 / high)
    np.testing.assert_array_equal(np.asarray(image), expected)
    assert bool(medium("image").note(image)) is (bits < 16)


@pytest.mark.parametrize(("bits", "said"), [(16, False), (12, True), (8, True)])
def test_what_was_stretched_is_noted(bits, said):
    image = decode(png(ramp((1 << bits) - 1)), "image")
    assert bool(medium("image").note(image)) is said
    assert not medium("image").note(decode(Image.new("L", (3, 3)), "image"))


# -- sounds --------------------------------------------------------------------------------------

RATE = 16_000
WAVE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)


def samples(values, rate=RATE) -> np.ndarray:
    return decode((values, rate), "audio").samples


@pytest.mark.parametrize(
    "values",
    [WAVE[None], WAVE[:, None], np.stack([WAVE, WAVE]), np.stack([WAVE, WAVE], 1),
     np.tile(WAVE, (32, 1)), np.asfortranarray(np.stack([WAVE] * 6))],
    ids=lambda values: str(values.shape),
)  # fmt: skip
def test_channels_may_come_first(values):
    np.testing.assert_allclose(samples(values), WAVE, atol=1e-6)
    np.testing.assert_allclose(decode(Audio(values, RATE), "audio").samples, WAVE, atol=1e-6)


def test_channels_are_averaged_in_either_order():
    left, right = WAVE, -0.5 * WAVE
    for values in (np.stack([left, right]), np.stack([left, right], 1)):
        np.testing.assert_allclose(samples(values), WAVE / 4, atol=1e-6)


def test_tensors_as_torchaudio_gives_them():
    torch = pytest.importorskip("torch")
    np.testing.assert_allclose(samples(torch.from_numpy(WAVE[None])), WAVE, atol=1e-6)


@pytest.mark.parametrize("shape", [(64, 16_000), (16_000, 64), (100, 33)])
def test_too_many_channels_name_the_order(shape):
    with pytest.raises(DataError, match="channels") as error:
        samples(np.zeros(shape, np.float32))
    assert "[n, channels]" in error.value.hint


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int8", "int16", "int32"])
def test_integers_are_scaled_by_their_range(dtype):
    kind = np.iinfo(dtype)
    half = (int(kind.max) - int(kind.min) + 1) // 2
    middle = half if kind.min == 0 else 0
    values = np.rint(WAVE.astype(np.float64) * (half - 1) + middle).astype(dtype)
    np.testing.assert_allclose(samples(values), WAVE, atol=1.1 / half + 1e-6)
    np.testing.assert_allclose(samples(np.stack([values, values])), WAVE, atol=1.1 / half + 1e-6)
    assert not samples(np.full(9, middle, dtype)).any()


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_without_a_full_scale_are_refused(dtype):
    with pytest.raises(DataError, match="no full scale") as error:
        samples(np.arange(9, dtype=dtype))
    assert "int16" in error.value.hint


def test_the_rate_comes_last():
    with pytest.raises(DataError, match=r"\(rate, samples\)"):
        decode((RATE, WAVE), "audio")
    with pytest.raises(DataError, match="numbers"):
        samples(np.array(["a", "b"]))


# -- other files ---------------------------------------------------------------------------------

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
HTML = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
SVG = b'<?xml version="1.0"?>\n<!-- by hand -->\n<svg xmlns="http://www.w3.org/2000/svg"/>'
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40
DICOM = b"\0" * 128 + b"DICM" + b"\0" * 40
M4A = b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom" + b"\0" * 40
WEBM = b"\x1a\x45\xdf\xa3" + b"\0" * 40
AAC = b"\xff\xf1\x50\x80\x02\x1f\xfc" + b"\0" * 40


@pytest.fixture
def no_extras(monkeypatch):
    monkeypatch.setattr(extras, "_is_there", lambda module: False)


@pytest.mark.parametrize("takes", ["image", "audio", "text"])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (LFS, ("Git LFS pointer", "git lfs pull")),
        (HTML, ("HTML page", "download")),
        (SVG, ("SVG", "PNG")),
    ],
    ids=["lfs", "html", "svg"],
)
def test_a_file_is_named_by_its_first_bytes(tmp_path, takes, data, words):
    (tmp_path / "a.bin").write_bytes(data)
    for value in (tmp_path / "a.bin", data):
        with pytest.raises(DataError) as error:
            decode(value, takes)
        assert all(word in error.value.message for word in words), error.value.message


@pytest.mark.parametrize(
    ("data", "takes", "what", "extra"),
    [
        (HEIC, "image", "HEIC", "heic"),
        (DICOM, "image", "DICOM", "dicom"),
        (M4A, "audio", "MPEG-4", "av"),
        (WEBM, "audio", "WebM", "av"),
        (AAC, "audio", "AAC", "av"),
    ],
    ids=["heic", "dicom", "m4a", "webm", "aac"],
)
def test_an_extra_that_is_missing_is_named(no_extras, data, takes, what, extra):
    with pytest.raises(DataError) as error:
        decode(data, takes)
    assert what in error.value.message
    assert how_to_install(f"fusemix[{extra}]") in error.value.message


@pytest.mark.parametrize(("takes", "form"), [("audio", "an image"), ("image", "a sound")])
def test_the_other_medium_is_named(takes, form):
    buffer = io.BytesIO()
    if takes == "audio":
        Image.new("RGB", (3, 3)).save(buffer, "PNG")
    else:
        soundfile.write(buffer, WAVE, RATE, format="WAV")
    with pytest.raises(DataError, match="PNG" if takes == "audio" else "WAV"):
        decode(buffer.getvalue(), takes)
