"""What every reader has seen is used, repeated or rejected: on random files and folders."""

import io
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusemix_core.config import DataConfig
from fusemix_core.data import read_pairs
from fusemix_core.errors import DataError

TAKES = {"image": "image", "text": "text"}
few = settings(max_examples=40, deadline=None)

# a row: which image (some are missing, empty or outside), which text, and how much it is trusted
IMAGES = ["0.png", "1.png", "2.png", "same.png", "none.png", "empty.png", "../up.png", "", "0.PNG"]
TEXTS = ["a", "b", "a ", '"open', 'c"', "nan", "['a', 'b']", "", "two\nlines"]
TRUSTS = ["", "1", "0.5", "x"]
CELLS = st.tuples(st.sampled_from(IMAGES), st.sampled_from(TEXTS), st.sampled_from(TRUSTS))
ROWS = st.lists(CELLS, min_size=1, max_size=12)


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEMIX_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    furnish(folder)
    return folder


def furnish(folder):
    for i in range(3):
        (folder / f"{i}.png").write_bytes(b"image %d" % i)
    (folder / "same.png").write_bytes(b"image 0")
    (folder / "empty.png").touch()


def check(source, seen=None, **options):
    """The counts of a source add up to what it holds; None if nothing of it can be used."""
    options = {"validation_fraction": 0.3, "test_fraction": 0.0, **options}
    try:
        data = read_pairs(DataConfig(source=(str(source),), **options), TAKES)
    except DataError as error:
        assert error.message
        return None
    counts = data.counts
    assert min(counts.values()) >= 0
    assert counts["seen"] == counts["used"] + counts["repeated"] + counts["rejected"]
    if seen is not None:
        assert counts["seen"] == seen
    places = {(one.path, one.row) for one in data.rejected}
    used = {data.origin[i] for i in range(len(data))}
    for modality, ids in data.unpaired.items():
        used |= {data.items[modality].origin[i] for i in ids.tolist()}
    assert len(used | places) + counts["repeated"] == counts["seen"]
    assert all(one.reason for one in data.rejected)
    links = [(*link, int(s)) for link, s in zip(data.links.tolist(), split_of(data), strict=True)]
    assert len(set(links)) == len(links), "a pair is there twice"
    return data


def split_of(data):
    found = [0] * len(data)
    for code, rows in enumerate(data.splits.values()):
        for row in rows:
            found[row] = code
    return found


# -- manifests -------------------------------------------------------------------------------------


@given(ROWS, st.sampled_from(",;\t|"), st.booleans(), st.booleans())
@few
def test_tables_by_hand(photos, rows, mark, quoted, unpaired):
    """Cells as people write them: quotes are opened and not closed, cells are missing."""
    lines = []
    for row in rows:
        cells = ['"' + cell.replace('"', '""') + '"' if quoted else cell for cell in row]
        lines.append(mark.join(cells))
    path = photos / "a.csv"
    path.write_text("\n".join([mark.join(["image", "text", "trust"]), *lines]) + "\n")
    seen = len(rows) if quoted else None
    check(path, seen, unpaired=unpaired)


@given(ROWS, st.booleans())
@few
def test_lines_of_json(photos, rows, broken):
    lines = [json.dumps(dict(zip(("image", "text", "trust"), row, strict=True))) for row in rows]
    if broken:
        lines[0] = lines[0][:-3]
    (photos / "a.jsonl").write_text("\n".join(lines))
    check(photos / "a.jsonl", len(rows) if len(rows) > 1 or not broken else None)
    (photos / "a.json").write_text("[" + ",\n".join(lines) + "]")
    if not broken:
        check(photos / "a.json", len(rows))


@given(ROWS, st.booleans())
@few
def test_parquet(photos, rows, unpaired):
    columns = dict(zip(("image", "text", "trust"), map(list, zip(*rows, strict=True)), strict=True))
    path = photos / "a.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=3)
    check(path, len(rows), unpaired=unpaired)


@given(ROWS)
@few
def test_captions_of_coco(photos, rows):
    images = [{"id": i, "file_name": name} for i, name in enumerate(IMAGES)]
    annotations = [
        {"image_id": IMAGES.index(image) if trust != "x" else 99, "caption": text}
        for image, text, trust in rows
    ]
    lost = sum(trust == "x" for _, _, trust in rows)
    path = photos / "coco.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    check(path, len(images) + lost)


# -- archives and folders --------------------------------------------------------------------------

STEMS = ["a", "b", "c.1", "c.2", "sub/a", "train/x", "test/x", "val/y", ".hidden"]
SUFFIXES = [".png", ".jpg", ".PNG", ".txt", ".json", ".heic", ".md", "", ".wav"]
FILES = st.dictionaries(
    st.tuples(st.sampled_from(STEMS), st.sampled_from(SUFFIXES)),
    st.sampled_from([b"one", b"two", b"", b'{"caption": "x"}', b"caf\xe9", b"<html>"]),
    min_size=1,
    max_size=16,
)


@given(FILES, st.booleans(), st.booleans())
@few
def test_shards(photos, files, compressed, cut):
    path = photos / ("a.tar.gz" if compressed else "a.tar")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if compressed else "w") as archive:
        for (stem, suffix), content in files.items():
            member = tarfile.TarInfo(stem + suffix)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    data = buffer.getvalue()
    path.write_bytes(data[: len(data) // 2] if cut else data)
    check(path)


@given(FILES, st.booleans(), st.sampled_from(["", "loop", "outside"]))
@few
def test_folders_lose_no_file(files, allow_outside, link):
    """Every file is in a row that is used, or stands in a reason by its name."""
    place = Path(tempfile.mkdtemp())
    try:
        root = place / "data"
        root.mkdir()
        for (stem, suffix), content in files.items():
            path = root / (stem + suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_dir():
                path.write_bytes(content)
        (place / "far").mkdir()
        (place / "far" / "z.png").write_bytes(b"far")
        (place / "far" / "z.txt").write_text("far")
        if link:
            os.symlink(root if link == "loop" else place / "far", root / "more")
        data = check(root, allow_outside=allow_outside)
        if data is None:
            return
        used = {one.path for one in data.items["image"].references}
        said = set(map(str, data.items["text"].references))
        texts = " ".join(said)
        told = " ".join(one.reason for one in data.rejected)
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                stem = os.path.splitext(path)[0]
                fine = name.startswith(".") or path in used or name in told
                beside = any(os.path.splitext(u)[0] == stem for u in used)
                fine |= name.endswith((".txt", ".wav")) and beside  # in the row, if nobody asks
                fine |= os.path.splitext(os.path.relpath(path, root))[0] in told
                content = Path(path).read_bytes()
                repeated = any(Path(u).read_bytes() == content for u in used)
                if name.endswith(".txt"):
                    codes = ("utf-8", "cp1252")
                    repeated |= any(content.decode(code, "replace") in said for code in codes)
                assert fine or repeated, (name, told, texts)
    finally:
        shutil.rmtree(place)


@given(
    st.sets(st.sampled_from([f"{s}/{i}.png" for s in ("train", "test", ".") for i in range(4)])),
    st.lists(st.sampled_from(["0.png", "1.png", "1.PNG", "9.png", ""]), min_size=1, max_size=6),
    st.sampled_from(["metadata.jsonl", "metadata.csv"]),
)
@few
def test_folders_of_tables_lose_no_file(files, rows, name):
    """Each row counts, and each image that no row names stands in a reason by its name."""
    place = Path(tempfile.mkdtemp())
    try:
        for file in files:
            (place / file).parent.mkdir(exist_ok=True)
            (place / file).write_bytes(file.encode())
        (place / "train").mkdir(exist_ok=True)
        cells = [(row, f"text {i}") for i, row in enumerate(rows)]
        lines = [json.dumps({"file_name": row, "text": text}) for row, text in cells]
        if name.endswith("csv"):
            lines = ["file_name,text", *(f"{row},{text}" for row, text in cells)]
        (place / "train" / name).write_text("\n".join(lines))
        data = check(place)
        if data is None:
            return
        used = {os.path.relpath(one.path, place) for one in data.items["image"].references}
        told = [one.reason.split(":")[0] for one in data.rejected if not one.bad]
        unnamed = {os.path.normpath(f) for f in files} - used
        named = {row.lower() for row in rows}
        assert {f for f in unnamed if os.path.basename(f) not in named} <= set(told)
        assert data.rows_read == len(rows) + len(told)
    finally:
        shutil.rmtree(place)
