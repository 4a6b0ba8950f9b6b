"""Files that claim, or are, far more than they should be, each read in a process of its own.

`python heavy.py FOLDER NAME…` forks one process a case, so that the memory each took is known, and
prints a JSON object per line: name, megabytes at its peak beyond those at its start, seconds, said.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import struct
import sys
import tarfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fusemix_core.config import DataConfig, read_toml
from fusemix_core.data import decode, read_pairs
from fusemix_core.data.parquet import ParquetReader
from fusemix_core.errors import FusemixError
from fusemix_core.evaluation.prompt_files import read_classes
from fusemix_core.latents.shards import read_shard

GIGABYTE = 1 << 30
SECONDS = 120
CASES: dict[str, Callable[[Path], object]] = {}


def case(function: Callable[[Path], object]) -> Callable[[Path], object]:
    CASES[function.__name__] = function
    return function


def read(path: Path) -> str:
    Image.new("RGB", (3, 3)).save(path.parent / "0.png")
    options = {"validation_fraction": 0.0, "test_fraction": 0.0}
    data = read_pairs(DataConfig((str(path),), **options), {"image": "image", "text": "text"})
    return f"{len(data)} pairs; " + "; ".join(f"row {r.row}: {r.reason}" for r in data.rejected)


def sparse(path: Path, start: bytes, size: int, end: bytes = b"") -> Path:
    """A file of `size` NULs between `start` and `end`, which takes no room on disk."""
    with open(path, "wb") as file:
        file.write(start)
        file.seek(size, 1)
        file.write(end)
        file.truncate(len(start) + size + len(end))
    return path


# -- lines and documents ---------------------------------------------------------------------------


@case
def line_of_a_gigabyte_csv(folder: Path) -> object:
    return read(sparse(folder / "a.csv", b"image,text\n0.png,a\n1.png,", GIGABYTE, b"\n0.png,b\n"))


@case
def line_of_a_gigabyte_tsv(folder: Path) -> object:
    start = b'image\ttext\n0.png\ta\n0.png\t"'
    return read(sparse(folder / "a.tsv", start, GIGABYTE, b"\n0.png\tb\n"))


@case
def line_of_a_gigabyte_jsonl(folder: Path) -> object:
    row = b'{"image": "0.png", "text": "%s"}\n'
    return read(sparse(folder / "a.jsonl", row % b"a" + b"{", GIGABYTE, b"\n" + row % b"b"))


@case
def document_of_a_gigabyte(folder: Path) -> object:
    return read(sparse(folder / "a.json", b"[", GIGABYTE, b"]"))


@case
def nulls(folder: Path) -> object:
    return read(sparse(folder / "a.csv", b"", GIGABYTE))


@case
def nested_json(folder: Path) -> object:
    good = b'{"image": "0.png", "text": "a"}\n'
    (folder / "a.jsonl").write_bytes(good + b"[" * 20_000_000 + b"\n" + b'{"a":' * 5_000_000)
    return read(folder / "a.jsonl")


@case
def nested_toml(folder: Path) -> object:
    (folder / "a.toml").write_bytes(b"a = " + b"[" * 1_000_000)
    return read_toml(folder / "a.toml")


@case
def endless_config(folder: Path) -> object:
    return read_toml("/dev/zero")


@case
def classes_of_a_gigabyte(folder: Path) -> object:
    return read_classes(sparse(folder / "a.txt", b"a\n", GIGABYTE))


@case
def captions_of_a_gigabyte(folder: Path) -> object:
    (folder / "p").mkdir()
    Image.new("RGB", (3, 3)).save(folder / "p" / "1.png")
    (folder / "p" / "0.txt").write_text("good")
    return read(sparse(folder / "p" / "1.txt", b"a\n", GIGABYTE).parent)


# -- pictures --------------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *more: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more)


@case
def picture_png(folder: Path) -> object:
    return decode(png(60_000, 60_000, chunk(b"IDAT", zlib.compress(b"\0" * 99))), "image")


@case
def picture_png_text(folder: Path) -> object:
    bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * (200 << 20), 9))
    return decode(png(3, 3, *[bomb] * 5), "image")


@case
def picture_webp(folder: Path) -> object:
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xff\x3f\0" * 2
    frame = b"ANIM" + struct.pack("<I", 6) + b"\0" * 6
    body = b"WEBP" + canvas + frame
    return decode(b"RIFF" + struct.pack("<I", len(body)) + body, "image")


@case
def picture_tiff(folder: Path) -> object:
    tags = [(256, 4, 1, 2**31 - 1), (257, 4, 1, 2**31 - 1), (258, 3, 1, 8), (259, 3, 1, 1),
            (262, 3, 1, 1), (273, 4, 1, 8), (278, 4, 1, 2**31 - 1), (279, 4, 1, 99)]  # fmt: skip
    table = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return decode(b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + table + b"\0" * 99, "image")


@case
def picture_gif(folder: Path) -> object:
    sink = io.BytesIO()
    Image.new("P", (3, 3)).save(sink, "GIF")
    data = bytearray(sink.getvalue())
    data[6:10] = b"\xff\xff\xff\xff"
    return decode(bytes(data), "image")


@case
def picture_of_many_frames(folder: Path) -> object:
    sink = io.BytesIO()
    Image.new("P", (500, 500)).save(sink, "GIF")
    data = sink.getvalue()
    frame = data[data.index(b",", 700) : -1]
    image = decode(data[:-1] + frame * 20_000 + b";", "image")
    return f"{image.size}"


@case
def picture_bmp(folder: Path) -> object:
    header = struct.pack("<IiiHHIIiiII", 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0)
    return decode(b"BM" + struct.pack("<IHHI", 99, 0, 0, 54) + header + b"\0" * 99, "image")


@case
def picture_ppm(folder: Path) -> object:
    return decode(b"P6 4000000000 4000000000 255\n" + b"\0" * 99, "image")


@case
def picture_of_three_gigabytes(folder: Path) -> object:
    return decode(sparse(folder / "a.webp", b"RIFF\0\0\0\0WEBP", 3 * GIGABYTE), "image")


@case
def largest_picture(folder: Path) -> object:
    """As many pixels as are allowed, all of them there, and transparent: 700 kB on disk."""
    side = 13_370
    rows = zlib.compressobj(9)
    body = b"".join(rows.compress(b"\0" * (1 + 4 * side)) for _ in range(side)) + rows.flush()
    data = png(side, side, chunk(b"IDAT", body), chunk(b"IEND", b""))
    return f"{decode(data, 'image').size} of {len(data) >> 10} kB"


# -- sounds ----------------------------------------------------------------------------------------


def wave(rate: int, samples: int, channels: int = 1) -> bytes:
    """The header of a WAV file of 16-bit samples."""
    size = 2 * samples * channels
    form = struct.pack("<HHIIHH", 1, channels, rate, 2 * rate * channels, 2 * channels, 16)
    fields = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size % 2**32)
    return b"RIFF" + struct.pack("<I", (36 + size) % 2**32) + b"WAVE" + fields


@case
def sound_that_claims_100_hours(folder: Path) -> object:
    (folder / "a.wav").write_bytes(wave(5000, 5000 * 360_000) + b"\1\0" * 999)
    return len(decode(folder / "a.wav", "audio", 16_000).samples)


@case
def sound_of_100_hours(folder: Path) -> object:
    path = sparse(folder / "a.wav", wave(5000, 5000 * 360_000), 2 * 5000 * 360_000)
    return decode(path, "audio", 16_000)


@case
def sound_of_many_channels(folder: Path) -> object:
    path = sparse(folder / "a.wav", wave(48_000, 1 << 19, 1024), 2 << 29)
    return len(decode(path, "audio").samples)


@case
def sound_at_a_rate_that_explodes(folder: Path) -> object:
    return decode((np.zeros(1 << 20, np.float32), 100), "audio", 48_000)


@case
def sound_of_an_hour(folder: Path) -> object:
    path = sparse(folder / "a.wav", wave(48_000, 48_000 * 3600), 2 * 48_000 * 3600)
    return f"{len(decode(path, 'audio', 16_000).samples) / 16_000:.0f} s"


# -- archives and tables ---------------------------------------------------------------------------


def sample(name: str) -> bytes:
    """A picture and its text as members of a tar, without its end."""
    picture, sink = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (3, 3)).save(picture, "PNG")
    with tarfile.open(fileobj=sink, mode="w") as file:
        for suffix, data in (("png", picture.getvalue()), ("txt", name.encode())):
            member = tarfile.TarInfo(f"{name}.{suffix}")
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
        return sink.getvalue()[: file.offset]


def archive(folder: Path, member: tarfile.TarInfo) -> Path:
    """A sample, a member of NULs, and another sample."""
    start = sample("a") + member.tobuf(tarfile.GNU_FORMAT)
    return sparse(folder / "a.tar", start, member.size, sample("b") + b"\0" * 1024)


@case
def archive_with_a_name_of_a_gigabyte(folder: Path) -> object:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, GIGABYTE
    return read(archive(folder, member))


@case
def archive_with_a_text_of_a_gigabyte(folder: Path) -> object:
    member = tarfile.TarInfo("c.txt")
    member.size = GIGABYTE
    return read(archive(folder, member))


@case
def archive_with_a_picture_of_three_gigabytes(folder: Path) -> object:
    member = tarfile.TarInfo("c.png")
    member.size = 3 * GIGABYTE
    return read(archive(folder, member))


def apart(make: Callable[[], object]) -> None:
    """Make a file in a process of its own, whose memory does not count."""
    if not (pid := os.fork()):
        make()
        os._exit(0)
    os.waitpid(pid, 0)


@case
def parquet_bomb(folder: Path) -> object:
    """2,000 rows of one value of 50 MB: 100 GB in 6 kB."""

    def make() -> None:
        number, value = pa.array([0] * 2000, pa.int32()), pa.array([b"\0" * 50_000_000])
        values = pa.DictionaryArray.from_arrays(number, value)
        table = pa.table({"image": values, "text": ["a"] * 2000})
        pq.write_table(table, folder / "a.parquet", compression="zstd", store_schema=False)

    apart(make)
    rows = list(ParquetReader().rows(folder / "a.parquet"))
    return f"{len(rows)} rows, {len(rows[-1].values['image'].read()):,} bytes"


@case
def parquet_of_nulls(folder: Path) -> object:
    """Two row groups of 600 MB in 40 kB."""

    def make() -> None:
        form = pa.schema({"image": pa.binary()})
        with pq.ParquetWriter(folder / "a.parquet", form, compression="zstd") as sink:
            for _ in range(2):
                sink.write_table(pa.table({"image": [b"\0" * 600_000_000]}))

    apart(make)
    return [r.reason for r in ParquetReader().rows(folder / "a.parquet")]


@case
def shard_that_claims_a_terabyte(folder: Path) -> object:
    facts = {"__metadata__": {}, "keys": {"dtype": "U64", "shape": [1 << 36, 2],
             "data_offsets": [0, 1 << 40]}, "latents": {"dtype": "F16", "shape": [1 << 36, 1],
             "data_offsets": [1 << 40, (1 << 40) + (1 << 37)]}}  # fmt: skip
    text = json.dumps(facts).encode()
    (folder / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    return read_shard(folder / "a.safetensors")


# -- running them ----------------------------------------------------------------------------------


def run(name: str, folder: Path) -> dict[str, object]:
    """What a case took and said, in a process of its own."""
    out, into = os.pipe()
    if not (pid := os.fork()):
        signal.alarm(SECONDS)  # the end of the process, where nothing else ends it
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        try:
            said = f"read: {CASES[name](folder)}"
        except FusemixError as error:
            said = f"refused: {error}"
        except BaseException as error:
            said = f"failed: {error!r}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = time.monotonic() - start
        text = json.dumps([(peak - before) >> 10, round(seconds, 2), said[:1500]])
        os.write(into, text.encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as file:
        text = file.read()
    os.waitpid(pid, 0)
    megabytes, seconds, said = json.loads(text) if text else (0, 0, "the process died")
    return {"name": name, "megabytes": megabytes, "seconds": seconds, "said": said}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (12 * GIGABYTE, 12 * GIGABYTE))
    for name in sys.argv[2:] or CASES:
        folder = Path(sys.argv[1], name)
        folder.mkdir()
        print(json.dumps(run(name, folder)), flush=True)
