"""Items as Python programs hold them: read if they can be read in one way, else an error."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fusemix_core.data.media import Audio, decode
from fusemix_core.data.reading import pairs_from
from fusemix_core.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)
WAVE = np.sin(np.arange(400) / 9).astype(np.float32) / 2


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        PIXELS.astype(np.int64),
        PIXELS.astype(np.float32) / 255,
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        torch.from_numpy(PIXELS).permute(2, 0, 1).float().requires_grad_() / 255,
        np.moveaxis(PIXELS, 2, 0),
    ],
)
def test_arrays_and_tensors_are_images(image):
    assert np.array_equal(np.asarray(decode(image, "image")), PIXELS)


@pytest.mark.parametrize("grey", [PIXELS[:, :, 0], PIXELS[:, :, :1], torch.tensor(PIXELS[..., 0])])
def test_grey_arrays_are_images(grey):
    found = np.asarray(decode(grey, "image"))
    assert all(np.array_equal(found[:, :, i], PIXELS[:, :, 0]) for i in range(3))
    assert np.asarray(decode(PIXELS[:, :, 0] > 127, "image")).max() == 255


def test_an_array_with_alpha_is_put_on_white():
    clear = np.dstack([PIXELS, np.zeros((6, 9), np.uint8)])
    assert np.asarray(decode(clear, "image")).min() == 255


@pytest.mark.parametrize(
    ("image", "says", "hint"),
    [
        (PIXELS[None], "several images", "list"),
        (np.zeros((6, 9, 2)), r"\[6, 9, 2\] has no axis", r"\[h, w, 3\]"),
        (np.zeros((3, 9, 3)), r"may be \[h, w, c\] or \[c, h, w\]", "PIL"),
        (np.zeros(5), "is not an image", r"\[h, w\]"),
        (np.zeros((0, 5, 3)), "is not an image", r"\[h, w\]"),
        (PIXELS / 128 - 1.0, "values from -1", "normalisation"),
        (PIXELS.astype(np.int32) * 9, "values from 0 to", "uint8"),
        (np.full((4, 4), np.nan), "not finite", ""),
        (np.full((4, 4), "a"), "array of <U1", ""),
    ],
)
def test_an_array_that_is_no_image_or_two_is_an_error(image, says, hint):
    with pytest.raises(DataError, match=says) as raised:
        decode(image, "image")
    assert __import__("re").search(hint, raised.value.hint or "")


def png():
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_datasets_wraps_is_unwrapped(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    for value in ({"bytes": png(), "path": None}, {"bytes": None, "path": str(tmp_path / "a.png")}):
        assert np.array_equal(np.asarray(decode(value, "image")), PIXELS)
    clip = decode({"array": WAVE, "sampling_rate": 8000, "path": "a.wav"}, "audio")
    assert clip.rate == 8000 and np.array_equal(clip.samples, WAVE)


class Decoder:
    """What `datasets` 4 gives: torchcodec's decoder."""

    def get_all_samples(self):
        return type("Samples", (), {"data": torch.tensor(WAVE), "sample_rate": 8000})()


def test_an_audio_decoder_is_a_clip():
    clip = decode(Decoder(), "audio")
    assert clip.rate == 8000 and np.array_equal(clip.samples, WAVE)


def test_tensors_are_samples_and_the_order_of_a_pair_is_told():
    assert np.array_equal(decode((torch.tensor(WAVE), 8000), "audio").samples, WAVE)
    for value in ((8000, WAVE), (8000, torch.tensor(WAVE)), (np.int64(8000), list(WAVE))):
        with pytest.raises(DataError, match=r"\(rate, samples\)") as raised:
            decode(value, "audio")
        assert "(samples, rate)" in raised.value.hint
    with pytest.raises(DataError) as raised:
        decode(WAVE, "audio")
    assert "(samples, rate)" in raised.value.hint


@pytest.mark.parametrize("takes", ["image", "audio", "file"])
@pytest.mark.parametrize("address", ["https://example.org/a.jpg", "s3://bucket/a.wav"])
def test_an_address_is_told(takes, address):
    with pytest.raises(DataError, match="is a URL") as raised:
        decode(address, takes)
    assert "Download" in raised.value.hint


def test_pairs_from_and_encode_agree_on_items():
    images = [PIXELS, torch.from_numpy(PIXELS).permute(2, 0, 1), {"bytes": png(), "path": None}]
    clips = [Audio(WAVE, 8000), {"array": WAVE, "sampling_rate": 8000}, (WAVE, 8000)]
    takes = {"image": "image", "audio": "audio"}
    found = pairs_from({"image": images, "audio": clips}, takes, validation_fraction=0)
    assert not found.rejected and len(found.items["audio"]) == 1
    for i in range(len(found.items["image"])):
        assert np.array_equal(np.asarray(found.items["image"].load(i)), PIXELS)
    bad = pairs_from(
        {"image": [*images, PIXELS / 7], "audio": [*clips, clips[0]]}, takes, validation_fraction=0
    )
    assert "values from" in bad.rejected[0].reason
