"""One row of a good file is damaged: all others are kept, and that one is kept or told of."""

import codecs
import io
import json
import random
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz.readers import PICTURES, furnish, picture, read, tar, texts
from fuzz.structures import anything, search
from hypothesis import strategies as st

COUNT = 12
ROWS = st.integers(0, PICTURES - 1)
SEEDS = st.integers(0, 10**9)
ALL = {"validation_fraction": 0.0, "test_fraction": 0.0}
TEXTS = [text.replace(",", ";") for text in texts()]


def junk(*without):
    """Bytes as they lie about: none, some, and what formats are made of."""
    words = [b'"', b'""', b",", b"\t", b"\0", b"\r", b"{", b"}", b"[", b"\\", b"0.png", b"\xff",
             b"a b", "é".encode(), b'"image":', b"../x.png", b"x" * 2000]  # fmt: skip
    parts = st.one_of(st.sampled_from(words), st.binary(max_size=6))
    found = st.lists(parts, max_size=8).map(b"".join)
    return found.map(lambda data: data.translate(None, b"".join(without)))


def check(data, path, row, blank=False):
    """Every row but `row` (from 0) is kept as it was; that one is in the dataset, or rejected.
    A `blank` line is not a row."""
    images, captions = data.items["image"], data.items["text"]
    kept = {}
    for (i, j), (_, number) in zip(data.links, data.origin, strict=True):
        kept.setdefault(captions.describe(j), (images.read_bytes(i), number))
    for i in range(PICTURES):
        if i != row:
            assert kept[TEXTS[i]] == (picture(i), i + 1 - (blank and i > row))
    rejected = {r.row for r in data.rejected}
    assert rejected <= {row + 1} and all(r.path == str(path) for r in data.rejected)
    if not blank:
        assert data.rows_read == PICTURES
        assert row + 1 in rejected or row + 1 in {number for _, number in data.origin}


def delimited(folder, row, line, form):
    mark = "," if form == "csv" else "\t"
    lines = [f"{i}.png{mark}{text}".encode() for i, text in enumerate(TEXTS)]
    lines[row] = line
    path = folder / f"a.{form}"
    path.write_bytes(b"\n".join([f"image{mark}text".encode(), *lines]))
    check(read(path, **ALL), path, row, blank=not line.strip(b"\r"))


def json_lines(folder, row, line):
    lines = [json.dumps({"image": f"{i}.png", "text": t}).encode() for i, t in enumerate(TEXTS)]
    lines[row] = line
    path = folder / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    start = codecs.BOM_UTF8 if row == 0 else b""  # a mark at the start of a file is no text
    check(read(path, **ALL), path, row, blank=not line.removeprefix(start).strip())


def json_values(folder, row, value, where):
    rows = [{"image": f"{i}.png", "text": text} for i, text in enumerate(TEXTS)]
    if where == "row":
        rows[row] = value
    else:
        rows[row][where] = value
    (folder / "a.json").write_text(json.dumps(rows))
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for path in (folder / "a.json", folder / "a.jsonl"):
        check(read(path, **ALL), path, row)


def shards(folder, row, seed, form):
    """Bytes of a sample, of its headers too, become others."""
    data, draw = bytearray(tar(form)), random.Random(seed)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
    first, last = members[3 * row], members[3 * row + 2]
    for _ in range(draw.choice((1, 3, 200))):
        at = draw.randrange(first.offset, last.offset_data + last.size)
        data[at] = draw.randrange(256)
    path = folder / "a.tar"
    path.write_bytes(data)
    found = read(path, **ALL)
    kept = {found.items["text"].describe(j) for j in found.links[:, 1]}
    assert {text for i, text in enumerate(texts()) if i != row} <= kept
    assert texts()[row] in kept or len(found) == PICTURES or found.rejected


def parquet(folder, row, seed):
    """Bytes of a row group's pages become others."""
    path, draw = folder / "a.parquet", random.Random(seed)
    table = pa.table({"image": [picture(i) for i in range(PICTURES)], "text": TEXTS})
    pq.write_table(table, path, row_group_size=1, compression=draw.choice(["none", "zstd"]))
    column = pq.read_metadata(path).row_group(row).column(draw.randrange(2))
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 3, 30))):
        data[start + draw.randrange(column.total_compressed_size)] = draw.randrange(256)
    path.write_bytes(data)
    check(read(path, **ALL), path, row)


def sidecars(folder, row, data, kind):
    place = folder / "photos"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    furnish(place)
    for i, text in enumerate(TEXTS):
        (place / f"{i}.txt").write_text(text)
    (place / f"{row}.{kind}").write_bytes(data)
    check(read(place, **ALL), place, row)


CASES = [
    (delimited, {"row": ROWS, "line": junk(b"\n"), "form": st.sampled_from(["csv", "tsv"])}),
    (json_lines, {"row": ROWS, "line": junk(b"\n")}),
    (json_values, {"row": ROWS, "value": anything(),
                   "where": st.sampled_from(["row", "image", "text", "other"])}),
    (shards, {"row": ROWS, "seed": SEEDS,
              "form": st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])}),
    (parquet, {"row": ROWS, "seed": SEEDS}),
    (sidecars, {"row": ROWS, "data": junk(), "kind": st.sampled_from(["txt", "png"])}),
]  # fmt: skip
NAMES = [form.__name__ for form, _ in CASES]
each_form = pytest.mark.parametrize(("form", "drawn"), CASES, ids=NAMES)


def damage(form, drawn, folder, count):
    furnish(folder)
    search(lambda **values: form(folder, **values), count, **drawn)


@each_form
def test_one_damaged_row_costs_no_other(form, drawn, tmp_path):
    damage(form, drawn, tmp_path, COUNT)


@pytest.mark.long
@each_form
def test_one_damaged_row_costs_no_other_in_ten_thousand(form, drawn, tmp_path):
    damage(form, drawn, tmp_path, 10_000)
