"""Pictures, sounds and texts, in every format that people have."""

from __future__ import annotations

import io
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile
from fuzz.target import Target
from PIL import Image

from fusemix_core.data import decode


def pictures(form: str) -> list[bytes]:
    """A small picture in a format, in the modes that it has."""
    values = np.random.default_rng(0).integers(0, 256, (9, 12, 4), np.uint8)
    colours = Image.fromarray(values[..., :3])
    grey = Image.fromarray(values[..., 0])
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {
        "PNG": [(colours, {"exif": exif}), (Image.fromarray(values), {}),
                (Image.fromarray(values[..., 0].astype(np.uint16) * 257), {}),
                (grey.convert("P"), {"transparency": 3})],
        "JPEG": [(colours, {"exif": exif}), (grey, {}), (colours.convert("CMYK"), {}),
                 (colours, {"progressive": True})],
        "WEBP": [(colours, {"exif": exif}), (Image.fromarray(values), {"lossless": True}),
                 (colours, {"save_all": True, "append_images": [colours.rotate(90)]})],
        "GIF": [(colours, {"save_all": True, "append_images": [colours.rotate(90)]})],
        "TIFF": [(colours, {}), (colours, {"compression": "tiff_lzw"}),
                 (Image.fromarray(values[..., 0].astype(np.float32)), {}),
                 (colours, {"compression": "jpeg"})],
        "BMP": [(colours, {}), (grey.convert("1"), {})],
        "PPM": [(colours, {}), (grey, {})],
        "JPEG2000": [(colours, {})],
        "AVIF": [(colours, {})],
        "TGA": [(colours, {"compression": "tga_rle"})],
        "ICO": [(colours, {"sizes": [(8, 8)]})],
    }  # fmt: skip
    found = []
    for image, options in made[form]:
        sink = io.BytesIO()
        image.save(sink, form, **options)
        found.append(sink.getvalue())
    return found


def sounds() -> list[bytes]:
    """A tenth of a second in every format, one or two channels."""
    wave = 0.5 * np.sin(np.arange(1600) / 7).astype(np.float32)
    forms = [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("FLAC", "PCM_24"),
             ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"),
             ("AU", "ULAW"), ("CAF", "ALAC_16"), ("W64", "PCM_16"), ("RF64", "PCM_16")]  # fmt: skip
    found = []
    for form, subtype in forms:
        sink = io.BytesIO()
        both = wave if subtype == "IMA_ADPCM" else np.stack([wave, -wave / 2], 1)
        soundfile.write(sink, both, 16000, format=form, subtype=subtype)
        found.append(sink.getvalue())
    return found


def scans() -> list[bytes]:
    """DICOM and HEIC images, as far as their extras are installed."""
    found = []
    if find_spec("pydicom"):
        from data.scans import dicom

        values = np.arange(108).reshape(9, 12) * 30
        found += [dicom(values), dicom(values, PhotometricInterpretation="MONOCHROME1"),
                  dicom(values, WindowCenter=800, WindowWidth=900, RescaleSlope=2,
                        RescaleIntercept=-1024)]  # fmt: skip
    if find_spec("pillow_heif"):
        import pillow_heif

        sink = io.BytesIO()
        image = Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))
        pillow_heif.from_pillow(image).save(sink, quality=80)
        found.append(sink.getvalue())
    return found


def streams() -> list[bytes]:
    """Sounds in the containers that PyAV reads."""
    from data.scans import clip

    return [clip(form) for form in ("mp4", "adts", "webm")]


def see(data: bytes, folder: Path) -> None:
    image = decode(data, "image")
    assert image.mode == "RGB" and image.width and image.height
    np.asarray(image)


def hear(data: bytes, folder: Path, rate: int | None = 8000) -> None:
    path = folder / "a.bin"
    path.write_bytes(data)
    clip = decode(path, "audio", rate)
    assert clip.samples.dtype == np.float32 and clip.samples.ndim == 1 and len(clip.samples)
    assert np.isfinite(clip.samples).all() and np.abs(clip.samples).max() <= 1


def understand(data: bytes, folder: Path) -> None:
    path = folder / "a.txt"
    path.write_bytes(data)
    for value in (data, path):
        text = decode(value, "text")
        assert text and text == text.strip()
        text.encode()


FORMS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF", "TGA", "ICO")
CHUNKS = (b"IHDR", b"IDAT", b"acTL", b"zTXt", b"iCCP", b"eXIf", b"\xff\xd8", b"\xff\xc0", b"VP8X",
          b"\xff\xe1", b"RIFF", b"II*\0", b"MM\0*", b"\xff\xff\xff\x7f",
          b"%!PS-Adobe-3.0 EPSF-3.0\n", b"P3\n9 9\n255\n", b"GIF89a\xff\xff\xff\xff", b"jP  ",
          b"ftypavif")  # fmt: skip
TARGETS = [
    *(Target(f"image-{f.lower()}", partial(pictures, f), see, CHUNKS) for f in FORMS),
    Target("audio", sounds, hear, (b"RIFF", b"fmt ", b"data", b"\xff\xff\xff\x7f", b"fLaC", b"OggS",
                                   b"ID3", b"COMM", b"\x01\0\0\0", b"\0\0\0\0")),
    Target("audio-as-it-is", sounds, partial(hear, rate=None)),
    Target("text", lambda: ["\ufeffcafé\u0301 \U0001f600\n".encode()], understand,
           ("\u0344".encode() * 40, "\u2028".encode(), "\u200d".encode())),
]  # fmt: skip
if find_spec("pydicom") or find_spec("pillow_heif"):
    TARGETS.append(
        Target("image-scans", scans, see, (*CHUNKS, b"DICM", b"\x28\0\x10\0US", b"iloc"))
    )
if find_spec("av"):
    TOKENS = (b"ftypM4A ", b"moov", b"stsd", b"mp4a", b"\xff\xf1", b"\x1a\x45\xdf\xa3")
    TARGETS.append(Target("audio-streams", streams, hear, TOKENS))
