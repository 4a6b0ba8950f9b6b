"""The readers of paired data, each on a file that lies among a few pictures."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzz.target import Target
from PIL import Image

from fusemix_core.config import DataConfig
from fusemix_core.data import pairs_from, read_pairs, sources
from fusemix_core.data.cells import KINDS
from fusemix_core.data.dataset import PairedDataset, say_rejected
from fusemix_core.data.sources import expand
from fusemix_core.errors import DataError

TAKES = {"image": "image", "text": "text"}
PICTURES = 6


@cache
def picture(i: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 3), (i, 7, 40 * (i % 6))).save(buffer, "PNG")
    return buffer.getvalue()


def texts() -> list[str]:
    return [f"caption {i}, «{chr(97 + i)}»" for i in range(PICTURES)]


def furnish(folder: Path) -> Path:
    """`0.png` to `5.png` in a folder."""
    if not (folder / "0.png").exists():
        for i in range(PICTURES):
            (folder / f"{i}.png").write_bytes(picture(i))
    return folder


def read(source: Path | str, **options: object) -> PairedDataset:
    """A dataset, checked for what every one must hold, and used as a run uses it."""
    options = {"validation_fraction": 0.2, "test_fraction": 0.2, **options}
    data = read_pairs(DataConfig(source=(str(source),), **options), TAKES)
    assert (data.links >= -1).all() and ((data.links >= 0).sum(axis=1) >= 2).all()
    for column, items in zip(data.links.T, data.items.values(), strict=True):
        assert column.max() < len(items) == len(items.keys)
        for i in range(len(items)):
            try:
                items.load(i)
            except DataError as error:
                assert error.path and error.row
    rows = np.concatenate(list(data.splits.values()))
    assert sorted(rows) == list(range(len(data)))
    assert min(data.counts.values()) >= 0 and sum(data.counts.values()) == 2 * data.rows_read
    for one in data.rejected:
        assert one.path and one.row >= 1 and one.reason and len(one.reason) < 2000
    say_rejected(data.rejected).encode("utf-8", "backslashreplace")
    data.write_rejected(Path(str(source)).parent / "rejected.jsonl")
    return data


def manifest(name: str) -> Callable[[bytes, Path], object]:
    """Reads an input as the file `name`."""

    def run(data: bytes, folder: Path) -> object:
        path = furnish(folder) / name
        path.write_bytes(data)
        return read(path)

    return run


def utf_16(data: bytes, folder: Path) -> object:
    path = furnish(folder) / "a.csv"
    path.write_bytes(data)
    return read(path, encoding="utf-16")


# -- good files ----------------------------------------------------------------------------------


def table(mark: str) -> bytes:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if mark in text or '"' in text else text

    lines = [["image", "text", "more"], *([f"{i}.png", t, "x"] for i, t in enumerate(texts()))]
    return "".join(mark.join(map(cell, line)) + "\n" for line in lines).encode()


def objects() -> list[dict[str, object]]:
    return [{"image": f"{i}.png", "text": t, "n": i} for i, t in enumerate(texts())]


def json_lines() -> bytes:
    lists = {"image": "1.png", "text": ["one", "two"], "o": {"a": [1.5, None]}}
    return "".join(json.dumps(o) + "\n" for o in [*objects(), lists]).encode()


def karpathy() -> bytes:
    images = [
        {"filename": f"{i}.png", "split": "train", "sentences": [{"raw": t}, {"raw": t + "!"}]}
        for i, t in enumerate(texts())
    ]
    return json.dumps({"images": images}, ensure_ascii=False).encode()


def coco() -> bytes:
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(PICTURES)]
    annotations = [{"image_id": i, "caption": t} for i, t in enumerate(texts())]
    return json.dumps({"images": images, "annotations": annotations}).encode()


def tokens() -> bytes:
    return "".join(f"{i}.png#{k}\t{t}\n" for i, t in enumerate(texts()) for k in (0, 1)).encode()


def parquet(image: str, **options: object) -> bytes:
    forms = {
        "paths": [f"{i}.png" for i in range(PICTURES)],
        "bytes": [picture(i) for i in range(PICTURES)],
        "structs": [{"bytes": picture(i), "path": f"{i}.png"} for i in range(PICTURES)],
    }
    columns = {"image": forms[image], "text": texts(), "lists": [["a", "b"]] * PICTURES,
               "when": pa.array(range(PICTURES), pa.timestamp("s"))}  # fmt: skip
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, row_group_size=4, **options)
    return sink.getvalue()


def tar(format: int = tarfile.GNU_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as archive:
        for i, text in enumerate(texts()):
            name = f"a/é{'long' * 40 * (i == 2)}{i}"
            add(archive, f"{name}.png", picture(i))
            add(archive, f"{name}.txt", text.encode())
            add(archive, f"{name}.json", json.dumps({"n": i, "s": "é"}).encode())
    return sink.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


# -- a folder, a saved dataset, names --------------------------------------------------------------


def sidecar(data: bytes, folder: Path) -> object:
    place = folder / "photos"
    place.mkdir(exist_ok=True)
    furnish(place)
    for i, text in enumerate(texts()):
        (place / f"{i}.txt").write_text(text)
    (place / "2.txt").write_bytes(data)
    found = read(place)
    assert len({int(i) for i in found.links[:, 0]}) >= PICTURES - 1
    return found


@cache
def saved_files() -> dict[str, bytes]:
    """The files of a saved dataset by name."""
    import datasets

    columns = {"image": [{"bytes": picture(i), "path": None} for i in range(PICTURES)],
               "text": texts(), "kind": [0, 1, 0, 1, 0, 1]}  # fmt: skip
    features = datasets.Features(
        image=datasets.Image(),
        text=datasets.Value("string"),
        kind=datasets.ClassLabel(names=["a", "b"]),
    )
    with TemporaryDirectory() as folder:
        place = Path(folder, "d")
        datasets.disable_progress_bars()
        datasets.Dataset.from_dict(columns, features).save_to_disk(place)
        return {p.name: p.read_bytes() for p in place.iterdir()}


def saved(file: str) -> tuple[Callable[[], Sequence[bytes]], Callable[[bytes, Path], object]]:
    """(seeds, read) of one file of a saved dataset."""

    def name() -> str:
        return next(n for n in saved_files() if n.endswith(file))

    def run(data: bytes, folder: Path) -> object:
        place = folder / "saved"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for other, content in saved_files().items():
            (place / other).write_bytes(data if other == name() else content)
        return read(place)

    return lambda: [saved_files()[name()]], run


def cells(data: bytes, folder: Path) -> object:
    """A column of facts, read as each kind and as the guessed one."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, list) or not values:
        return None
    rows = {"image": [b"x%d" % i for i in range(len(values))], "text": ["t"] * len(values)}
    for kind in (*KINDS, None):
        name = f"f:{kind}" if kind else "f"
        try:
            found = pairs_from(rows, {"image": "image", "text": "text"}, facts={name: values})
        except DataError as error:
            assert "fact 'f'" in str(error)  # no row is left
            continue
        fact = found.facts["f"]
        assert len(fact) == len(found) == len(values) - len(found.rejected)
        assert fact.kind == {"xywh": "box", "labels": "text", "mask": "grid", None: fact.kind}.get(
            kind, kind
        )
        if fact.kind in ("class", "text"):
            assert ((fact.values >= -1) & (fact.values < len(fact.names))).all()
        else:
            assert not np.isinf(fact.values).any()
        assert all(one.reason.startswith("fact 'f': ") for one in found.rejected)
    return len(values)


def braces(data: bytes, folder: Path) -> object:
    name = data.decode("utf-8", "surrogateescape")
    if name.startswith(("/", "~", "..")) or "**" in name or "/.." in name:
        return None  # files of this machine
    with patch.object(sources, "_MOST_FILES", 500):
        return len(expand(f"{furnish(folder)}/{name}"))


JSON = (b'"image"', b'"text"', b'"split"', b'"filepath"', b'"filename"', b'"sentences"', b'"raw"',
        b'"bytes"', b":", b"NaN", b"[]", b"{}", b'"', b'"train"', b'"../0.png"')  # fmt: skip
TABLE = (b"image", b"text", b"0.png", b'""', b'"a\nb"', b"1.png,x\n", b"\n\n", b'["a","b"]')
TAR = (b"ustar\x0000", b"ustar  \0", b"\0" * 512, b"x", b"g", b"L", b"K", b"S", b"1", b"2", b"6",
       b"\x80\0\0\0\0\0\0\0", b"\xff" * 12, b"7777777777", b"19 size=-99999999999\n",
       b"30 GNU.sparse.map=a,b\n", b"path=../x\n")  # fmt: skip
TARGETS = [
    Target("csv", lambda: [table(","), table(";"), table("\t")], manifest("a.csv"), TABLE),
    Target("token", lambda: [tokens()], manifest("a.token"), (b"#0\t", b"0.png", b"\t", b"\n")),
    Target("csv-gz", lambda: [gzip.compress(table(","), mtime=0)], manifest("a.csv.gz")),
    Target("tar-gz", lambda: [gzip.compress(tar(), mtime=0)], manifest("a.tar.gz")),
    Target("utf-16", lambda: [table(";").decode().encode("utf-16")], utf_16, (b"\0", b"\xff\xfe")),
    Target("tsv", lambda: [table("\t")], manifest("a.tsv"), TABLE),
    Target("jsonl", lambda: [json_lines()], manifest("a.jsonl"), JSON),
    Target(
        "json",
        lambda: [karpathy(), coco(), json.dumps(objects()).encode(), json_lines()],
        manifest("a.json"),
        JSON,
    ),
    Target(
        "parquet",
        lambda: [
            parquet("paths"),
            parquet("bytes", compression="zstd"),
            parquet("structs", use_dictionary=False, compression="none"),
        ],
        manifest("a.parquet"),
        (b"PAR1", b"\x15\x00", b"\x19\x4c", b"ARROW:schema"),
    ),
    Target("tar", lambda: [tar(), tar(tarfile.PAX_FORMAT)], manifest("a.tar"), TAR),
    Target(
        "facts",
        lambda: [
            b'[1, 2.5, null, "3", "n/a", 1e400, NaN, -0.0]',
            b'["2024-05-31", "2024-05-31T12:00:00+02:00", 1704067200, "1969-12-31T23:59Z"]',
            b'[[1, 2, 3, 4], "1,2,3,4", "[1, 2, 3, 4]", [0, 0, 0, 0], [4, 3, 2, 1]]',
            '["cat", "dog", "cat", true, false, "\\u0000", "\\ud800", "é", " x "]'.encode(),
        ],
        cells,
        (
            b"null",
            b"true",
            b"NaN",
            b"Infinity",
            b"[[[",
            b"{}",
            b'"[1,2,3,4]"',
            b'"1e999"',
            b"9" * 400,
            b'"2024-02-30"',
            b'"0001-01-01T00:00+23:59"',
            b'"nan"',
            b'"1_0"',
            b'"\\ud800"',
        ),
    ),  # fmt: skip
    Target("sidecar", lambda: ["one\ntwo\né\n".encode()], sidecar),
    Target("saved-arrow", *saved(".arrow"), (b"ARROW1", b"\xff\xff\xff\xff")),
    Target("saved-info", *saved("dataset_info.json"), (*JSON, b'"_type"', b'"Value"', b'"os"')),
    Target("saved-state", *saved("state.json"), (*JSON, b'"_data_files"', b'"torch"', b"../")),
    Target(
        "braces",
        lambda: [b"{0..3}.png", b"{0,1,2}.png", b"[0-3].png", b"?.png", b"{0,1}.{png,png}"],
        braces,
        (b"{", b"}", b"..", b",", b"{0..99999}", b"{a,b}", b"*", b"[", b"]", b"{1..00000000}"),
    ),
]
