"""The paired dataset: reading with splits, what is set aside, and content keys."""

import io
import json
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusemix_core.config import DataConfig
from fusemix_core.data import Audio, PairedDataset, Rejected, pairs_from, read_pairs
from fusemix_core.data.hashes import HashMemory, file_key, reference_keys
from fusemix_core.data.items import first_occurrences
from fusemix_core.data.references import FileReference
from fusemix_core.digests import content_key
from fusemix_core.errors import DataError
from fusemix_core.home import home

TAKES = {"image": "image", "text": "text"}


def key_of(data: bytes) -> list[int]:
    return np.frombuffer(content_key(data), np.uint64).tolist()


@pytest.fixture
def folder(tmp_path):
    """`0.bin` to `39.bin`, all different, and `pairs.csv` over them with a split and a group."""
    lines = ["image,text,part,book"]
    for i in range(40):
        (tmp_path / f"{i}.bin").write_bytes(b"image %d" % i)
        part = ["train", "Val", "test", "restval"][i % 4]
        lines.append(f"{i}.bin,text {i},{part},book {i // 4}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    return tmp_path


def read(*sources, **options) -> PairedDataset:
    return read_pairs(DataConfig(source=tuple(map(str, sources)), **options), TAKES)


def texts(data, split) -> set[str]:
    return {data.items["text"].describe(i) for i in data.links[data.splits[split], 1]}


# -- splits --------------------------------------------------------------------------------------


def test_split_by_column(folder):
    data = read(folder / "pairs.csv", split_column="part")
    assert [len(p) for p in data.splits.values()] == [20, 10, 10]
    assert texts(data, "validation") == {f"text {i}" for i in range(1, 40, 4)}
    assert not data.warnings


def test_unknown_split_values_are_listed(folder):
    with pytest.raises(DataError, match="'book 0'"):
        read(folder / "pairs.csv", split_column="book")


def test_an_empty_split_is_a_rejected_row(folder):
    (folder / "b.csv").write_text("image,text,split\n0.bin,a,train\n1.bin,b,\n2.bin,c,test\n")
    options = {"validation_fraction": 0.0}
    data = read(folder / "b.csv", split_column="split", **options)
    assert [r.reason for r in data.rejected] == ["the column 'split' is empty"]
    unused = read(folder / "b.csv", test_fraction=0.0, **options)
    assert "--split-column split" in unused.warnings[0]


def test_split_by_file_with_leaks_counted(folder):
    (folder / "test.csv").write_text("image,text\n0.bin,text 0\n1.bin,new\n")
    data = read(folder / "pairs.csv", test=str(folder / "test.csv"), validation_fraction=0.2)
    assert texts(data, "test") == {"text 0", "new"}
    assert len(data.splits["validation"]) == 8 and len(data.splits["train"]) == 32
    assert any("No validation split is given: 20%" in w for w in data.warnings)
    both = sum(
        t in texts(data, "train") for t in ("text 0", "text 1")
    )  # the two images of the test file, as far as they were not drawn for validation
    assert any(
        w.startswith(f"{both} of the 2 image items of the test split") for w in data.warnings
    )


def test_a_part_that_no_file_gives_is_drawn_without_straddling_the_rest(folder):
    (folder / "v.csv").write_text("image,text\n0.bin,text 0\n")
    data = read(folder / "pairs.csv", validation=str(folder / "v.csv"))
    assert len(data.splits["test"]) == 4
    images = {n: set(data.links[p, 0].tolist()) for n, p in data.splits.items()}
    assert not images["train"] & images["test"]


def test_groups_stay_together(folder):
    data = read(folder / "pairs.csv", group_by="book")
    for part in data.splits.values():
        assert len(part) % 4 == 0 and len(part)


def test_no_fractions_no_split(folder):
    data = read(folder / "pairs.csv", validation_fraction=0.0, test_fraction=0.0)
    assert [len(p) for p in data.splits.values()] == [40, 0, 0]


# -- rejected ------------------------------------------------------------------------------------


def test_without_sets_items_aside(folder):
    takes = {**TAKES, "audio": "audio"}
    data = pairs_from(
        {
            "image": [b"a", b"a", b"b", b"c"],
            "text": ["one", "two", "three", "four"],
            "audio": [None, b"x", b"y", b"z"],
        },
        takes,
        split=["train", "train", "validation", "test"],
    )
    less = data.without("image", {0: "damaged"})
    assert less.links.tolist() == [[-1, 1, 0], [1, 2, 1], [2, 3, 2]]
    assert {n: p.tolist() for n, p in less.splits.items()} == {
        "train": [0],
        "validation": [1],
        "test": [2],
    }
    assert [(r.row, r.modality, r.reason) for r in less.rejected] == [
        (1, "image", "damaged"),
        (2, "image", "damaged"),
    ]
    assert [less.origin[i][1] for i in range(3)] == [2, 3, 4]
    assert len(data) == 4 and not data.rejected and less.items is data.items
    assert less.bad_rows == 2 and less.rows_read == 4
    assert len(less.without("audio", {0: "short"})) == 2
    assert data.without("image", {}) is data


def test_a_row_with_several_bad_links_is_reported_once():
    data = pairs_from({"image": [b"a", b"b"], "text": [["one", "two"], "three"]}, TAKES)
    less = data.without("image", {0: "damaged"})
    assert len(less) == 1 and len(less.rejected) == 1


def test_too_many_bad_rows(folder):
    text = (folder / "pairs.csv").read_text()
    (folder / "pairs.csv").write_text(text.replace("7.bin", "gone.bin"))
    data = read(folder / "pairs.csv")
    assert len(data.rejected) == 4  # 7, 17, 27 and 37
    data.check_bad(0.1)
    with pytest.raises(DataError, match=r"4 of 40 rows \(10.0%\)") as error:
        data.check_bad(0.09)
    assert "row 8" in error.value.message and "--max-bad 0.1" in error.value.hint


def test_rejected_is_written_as_json_lines(tmp_path):
    data = pairs_from({"image": [b"a"] * 2, "text": ["a", "b"]}, TAKES, split=["train"] * 2)
    data.rejected = [Rejected("a.csv", 3, "image", "é is \ud800 bad"), Rejected("b", 1, "", "x")]
    data.write_rejected(tmp_path / "rejected.jsonl")
    lines = (tmp_path / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[1]) == {"path": "b", "row": 1, "modality": "", "reason": "x"}
    assert "é is" in lines[0] and len(lines) == 2


# -- from Python ---------------------------------------------------------------------------------


def test_objects_in_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = Image.new("RGB", (3, 2), (1, 2, 3))
    picture.save("a.png")
    clip = (np.array([0.0, 0.25], np.float32), 8000)
    data = pairs_from(
        {
            "image": [picture, "a.png", Path("a.png"), Path("a.png").read_bytes(), None, "no.png"],
            "text": ["a", ["b", "c"], None, "d", "e", "f"],
            "audio": [clip, None, Audio(*clip), None, clip, None],
        },
        {"image": "image", "text": "text", "audio": "audio"},
        split=["train"] * 6,
    )
    assert len(data) == 6 and len(data.items["audio"]) == 1
    assert len(data.items["image"]) == 2  # Pillow's default file, and ours without loss
    for i in range(2):
        assert data.items["image"].load(i).getpixel((0, 0)) == (1, 2, 3)
    np.testing.assert_array_equal(data.items["audio"].load(0).samples, clip[0])
    assert [(r.row, r.reason) for r in data.rejected] == [(6, f"{tmp_path}/no.png does not exist")]


def test_lists_that_do_not_fit():
    with pytest.raises(DataError, match="don't fit"):
        pairs_from({"image": [b"a"], "text": ["a", "b"]}, TAKES)
    with pytest.raises(DataError, match="don't fit"):
        pairs_from({"image": [b"a"]}, TAKES)


# -- items and keys ------------------------------------------------------------------------------


def test_keys_are_those_of_the_contents(folder):
    data = read(folder / "pairs.csv")
    for i in (0, 13, 39):
        assert data.items["image"].keys[i].tolist() == key_of(b"image %d" % i)
        assert data.items["text"].keys[i].tolist() == key_of(b"text %d" % i)
        assert data.items["image"].read_bytes(i) == b"image %d" % i
    assert data.items["image"].keys.dtype == np.uint64
    assert data.items["image"].describe(3) == str(folder / "3.bin")


def test_load_names_file_and_row(folder):
    data = read(folder / "pairs.csv")
    with pytest.raises(DataError) as error:
        data.items["image"].load(5)
    assert error.value.path == str(folder / "pairs.csv") and error.value.row == 6
    assert "5.bin" in error.value.message and "not an image" in error.value.message
    (folder / "5.bin").unlink()
    with pytest.raises(DataError, match="does not exist"):
        data.items["image"].load(5)


def test_selected_items_keep_their_keys_and_where_they_were_read(tmp_path):
    for name in ("a", "b"):
        rows = [json.dumps({"text": f"{name}{i}"}) for i in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    config = DataConfig(source=(str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")))
    items = read_pairs(config, {"text": "text"}, least=1).items["text"]
    some = items.select(np.array([5, 3]))
    assert [some.load(i) for i in range(2)] == ["b2", "b0"]
    assert np.array_equal(some.keys, items.keys[[5, 3]])
    assert [some.origin[i] for i in range(2)] == [items.origin[5], items.origin[3]]
    assert some.origin.files == (str(tmp_path / "b.jsonl"),)


def test_first_occurrences():
    keys = np.array([[5, 1], [2, 9], [5, 1], [5, 0], [2, 9], [0, 0]], np.uint64)
    first, inverse = first_occurrences(keys)
    assert first.tolist() == [0, 1, 3, 5] and inverse.tolist() == [0, 1, 0, 2, 1, 3]
    assert [a.tolist() for a in first_occurrences(keys[:0])] == [[], []]
    many = np.random.default_rng(0).integers(0, 40, (5000, 2)).astype(np.uint64)
    first, inverse = first_occurrences(many)
    order = list(dict.fromkeys(map(tuple, many.tolist())))
    assert list(map(tuple, many[first].tolist())) == order
    np.testing.assert_array_equal(many[first][inverse], many)


# -- the memory of hashes ------------------------------------------------------------------------


def age(path, seconds=100):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_hashes_are_remembered_until_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    age(path)
    monkeypatch.setattr("fusemix_core.data.hashes._SETTLED", 0)  # ctime can't be set
    references = [FileReference(str(path))]
    memory = HashMemory(home() / "hashes.sqlite")
    assert reference_keys(references, memory)[0].tolist() == [key_of(b"one")]
    with monkeypatch.context() as patch:
        patch.setattr("fusemix_core.data.hashes.file_key", lambda path: 1 / 0)
        assert reference_keys(references, memory)[0].tolist() == [key_of(b"one")]
    path.write_bytes(b"two")
    age(path, 50)
    assert reference_keys(references, memory)[0].tolist() == [key_of(b"two")]


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    memory = HashMemory(home() / "hashes.sqlite")
    reference_keys([FileReference(str(path))], memory)
    status = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    keys, _ = reference_keys([FileReference(str(path))], memory)
    assert keys.tolist() == [key_of(b"two")]


def test_a_damaged_or_unwritable_memory_is_a_warning(folder, tmp_path, monkeypatch):
    home().mkdir(exist_ok=True)
    (home() / "hashes.sqlite").write_bytes(b"not a database" * 100)
    data = read(folder / "pairs.csv")
    assert len(data) == 40 and "hashes.sqlite can't be used" in data.warnings[-1]
    (tmp_path / "file").touch()
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "file" / "home"))
    assert "can't be used" in read(folder / "pairs.csv").warnings[-1]


def _hash_all(paths, database):
    keys, faults = reference_keys([FileReference(p) for p in paths], HashMemory(Path(database)))
    assert not faults
    return keys.tolist()


def test_several_processes_share_the_memory(folder, monkeypatch):
    monkeypatch.setattr("fusemix_core.data.hashes._SETTLED", 0)  # ctime can't be set
    paths = [str(folder / f"{i}.bin") for i in range(40)]
    for path in paths:
        age(path)
    database = str(home() / "hashes.sqlite")
    with multiprocessing.get_context("fork").Pool(4) as pool:
        results = pool.starmap(_hash_all, [(paths[i:] + paths[:i], database) for i in range(4)] * 3)
    assert results[0] == [key_of(b"image %d" % i) for i in range(40)]
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM keys").fetchone() == (40,)


def test_large_files_are_hashed_in_pieces(tmp_path):
    data = np.random.default_rng(0).bytes((1 << 20) * 2 + 17)
    (tmp_path / "a").write_bytes(data)
    assert file_key(str(tmp_path / "a")) == content_key(data)


def test_progress_is_told(folder):
    told = []
    config = DataConfig(source=(str(folder / "pairs.csv"),))
    read_pairs(config, TAKES, progress=lambda *one: told.append(one))
    assert told == [("image", 40, 40)]


# -- hygiene -------------------------------------------------------------------------------------


def test_importing_the_data_layer_is_light():
    code = (
        "import sys, fusemix_core.data\n"
        "heavy = {'torch', 'PIL', 'soundfile', 'pyarrow', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_that_are_all_bad_tell_why(folder):
    (folder / "b.csv").write_text("image,text\ngone.bin,a\n../x,b\n")
    with pytest.raises(DataError) as error:
        read(folder / "b.csv")
    assert "gone.bin does not exist" in error.value.message


def test_bytes_held_are_kept():
    buffer = io.BytesIO()
    Image.new("L", (2, 2), 9).save(buffer, "PNG")
    data = pairs_from({"image": [buffer.getvalue()], "text": ["a"]}, TAKES, split=["train"])
    assert data.items["image"].read_bytes(0) == buffer.getvalue()
    assert data.items["image"].load(0).getpixel((1, 1)) == (9, 9, 9)


def test_memory_grows_by_links_and_distinct_items_not_by_cells(tmp_path):
    import tracemalloc

    path = tmp_path / "a.csv"
    rows = "".join(f"C{i // 1000},caption {i % 1000}\n" for i in range(20_000))
    path.write_text("smiles,text\n" + rows)
    tracemalloc.start()
    data = read_pairs(DataConfig(source=(str(path),)), {"molecule": "text", "text": "text"})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data) == 20_000 and len(data.items["text"]) == 1000
    assert peak < 20_000 * 300
