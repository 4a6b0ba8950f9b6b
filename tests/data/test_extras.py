"""Formats that need an extra: HEIC, DICOM, and sounds by PyAV."""

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pillow_heif
import pydicom
import pytest
from data.scans import clip, dicom
from PIL import Image

from fusemix_core.config import DataConfig
from fusemix_core.data import decode, read_pairs
from fusemix_core.data.media import extras
from fusemix_core.data.suffixes import modality_of_suffix
from fusemix_core.errors import DataError
from fusemix_core.project import how_to_install


def grey(data) -> np.ndarray:
    image = np.asarray(decode(data, "image"))
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    return image[..., 0]


# -- DICOM ---------------------------------------------------------------------------------------

STORED = np.arange(64).reshape(8, 8) * 40  # 0 … 2520


def test_without_a_window_the_values_are_stretched():
    np.testing.assert_array_equal(grey(dicom(STORED)), np.rint(STORED * 255 / 2520))
    assert not grey(dicom(np.full((4, 4), 7))).any()


def test_a_window_is_over_rescaled_values():
    """PS3.3, C.11.2.1.2: the window's own formula, by hand."""
    data = dicom(STORED, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    x = STORED * 2.0 - 1024
    expected = np.clip((x - 39.5) / 399 + 0.5, 0, 1) * 255
    np.testing.assert_allclose(grey(data), expected, atol=0.51)


def test_monochrome1_is_turned_round():
    how = {"WindowCenter": 1000, "WindowWidth": 1500}
    light = grey(dicom(STORED, **how)).astype(int)
    dark = grey(dicom(STORED, PhotometricInterpretation="MONOCHROME1", **how)).astype(int)
    np.testing.assert_allclose(light + dark, 255, atol=1)


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_other_windows(function):
    data = dicom(STORED, WindowCenter=1200, WindowWidth=800, VOILUTFunction=function)
    x = (STORED - 1200) / 800
    expected = np.clip(x + 0.5, 0, 1) if function == "LINEAR_EXACT" else 1 / (1 + np.exp(-4 * x))
    np.testing.assert_allclose(grey(data), expected * 255, atol=0.51)


def test_the_first_of_several_windows_counts():
    several = dicom(STORED, WindowCenter=[1000, 40], WindowWidth=[1500, 80])
    one = dicom(STORED, WindowCenter=1000, WindowWidth=1500)
    np.testing.assert_array_equal(grey(several), grey(one))


def test_signed_values_and_padding():
    values = STORED - 1000
    values[0] = -2000
    data = dicom(values, bits=16, signed=True, PixelPaddingValue=-2000)
    expected = np.clip((values + 680) / (1520 + 680), 0, 1) * 255
    np.testing.assert_allclose(grey(data), expected, atol=0.51)


@pytest.mark.parametrize("bits", [8, 16])
def test_colours(bits):
    values = np.arange(4 * 4 * 3).reshape(4, 4, 3) * 5
    data = dicom(values << (bits - 8), bits=bits)
    np.testing.assert_array_equal(np.asarray(decode(data, "image")), values)


def test_a_file_without_suffix_and_one_without_an_image(tmp_path):
    (tmp_path / "IM0001").write_bytes(dicom(STORED))
    assert grey(tmp_path / "IM0001").max() == 255
    data = pydicom.dcmread(io.BytesIO(dicom(STORED)))
    del data.PixelData
    sink = io.BytesIO()
    data.save_as(sink, enforce_file_format=True)
    with pytest.raises(DataError, match="contains no image"):
        decode(sink.getvalue(), "image")
    with pytest.raises(DataError):
        decode(dicom(STORED)[:200], "image")


def study(folder: Path) -> Path:
    """Two scans as scanners name them, with their reports, and another file."""
    for i, name in enumerate(("IM0001", "1.2.840.10008.17")):
        head = b"\0" * 128 + b"DICM"
        (folder / name).write_bytes(
            dicom(STORED + i) if find_spec("pydicom") else head + name.encode()
        )
        (folder / f"{name}.txt").write_text(f"report {i}")
    (folder / "DICOMDIR").write_bytes(b"an index")
    Image.new("RGB", (4, 4), "red").save(folder / "a.png")
    (folder / "a.txt").write_text("a red square")
    return folder


@pytest.mark.parametrize("installed", [True, False])
def test_scans_of_a_folder_have_no_suffix(tmp_path, monkeypatch, installed):
    monkeypatch.setattr(extras, "_is_there", lambda module: installed)
    config = DataConfig((str(study(tmp_path)),), validation_fraction=0.0, test_fraction=0.0)
    found = read_pairs(config, {"image": "image", "text": "text"})
    assert len(found) == (3 if installed else 1)
    said = " ".join(one.reason for one in found.rejected if one.bad)
    for name in ("IM0001", "1.2.840.10008.17"):
        assert (f"{name} with {name}.txt: it is a DICOM file" in said) is not installed
    assert (how_to_install("fusemix[dicom]") in said) is not installed


# -- HEIC ----------------------------------------------------------------------------------------


def heic(image: Image.Image, **how) -> bytes:
    sink = io.BytesIO()
    pillow_heif.from_pillow(image).save(sink, quality=100, **how)
    return sink.getvalue()


def test_heic_is_read_and_turned(tmp_path):
    values = np.zeros((64, 96, 3), np.uint8)
    values[:, :48] = (200, 30, 30)
    image = Image.fromarray(values)
    (tmp_path / "a.jpg").write_bytes(heic(image))  # whatever its name
    got = np.asarray(decode(tmp_path / "a.jpg", "image")).astype(int)
    assert got.shape == values.shape and np.abs(got - values).mean() < 4
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode(heic(image, exif=exif.tobytes()), "image")
    assert turned.size == (64, 96)
    assert np.abs(np.asarray(turned).astype(int) - np.rot90(values, -1)).mean() < 4
    with pytest.raises(DataError):
        decode(heic(image)[:300], "image")


# -- sounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "rate"), [("mp4", 16_000), ("adts", 16_000), ("webm", 48_000)])
@pytest.mark.parametrize("channels", [1, 2])
def test_sounds_that_libsndfile_does_not_read(tmp_path, form, rate, channels):
    wave = 0.4 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    (tmp_path / "a.wav").write_bytes(clip(form, np.tile(wave, (channels, 1)), rate))
    for value in (tmp_path / "a.wav", (tmp_path / "a.wav").read_bytes()):
        heard = decode(value, "audio", 16_000)
        assert heard.rate == 16_000 and 15_000 < len(heard.samples) < 18_500
        inside = heard.samples[4_000:12_000]
        spectrum = np.abs(np.fft.rfft(inside * np.hanning(8_000)))
        assert abs(spectrum.argmax() * 2 - 440) <= 4
        assert 0.35 < np.abs(inside).max() < 0.45
    with pytest.raises(DataError):
        decode((tmp_path / "a.wav").read_bytes()[:60], "audio")


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("installed", [True, False])
def test_suffixes_are_known_while_their_extra_is_installed(monkeypatch, installed):
    monkeypatch.setattr(extras, "_is_there", lambda module: installed)
    known = modality_of_suffix()
    for suffix, modality in ((".heic", "image"), (".dcm", "image"), (".m4a", "audio")):
        assert known.get(suffix) == (modality if installed else None)
