"""Every reader, on what it should read and on what people and disks do to it."""

import io
import json
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fusemix_core.config import DataConfig
from fusemix_core.data import delimited, read_pairs, shards
from fusemix_core.data.sources import braces, expand
from fusemix_core.discovery import CORE, installed
from fusemix_core.errors import ContractError, DataError
from fusemix_core.registry import Registry
from fusemix_core.specs import ComponentSpec

TAKES = {"image": "image", "text": "text"}


def png(i: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (i % 256, i // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path):
    """A folder with `0.png` to `11.png`."""
    for i in range(12):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    return tmp_path


def read(source, takes=TAKES, **options):
    options = {"validation_fraction": 0.0, "test_fraction": 0.0, **options}
    return read_pairs(DataConfig(source=(str(source),), **options), takes)


def pairs(data) -> list[tuple[str, ...]]:
    """Each link as (name of the medium, text)."""
    items = list(data.items.values())
    return [
        tuple(
            "" if i < 0 else one.describe(i).replace("\\", "/").rpartition("/")[2]
            for one, i in zip(items, link, strict=True)
        )
        for link in data.links
    ]


def reasons(data) -> dict[int, str]:
    return {r.row: r.reason for r in data.rejected}


# -- CSV and TSV ---------------------------------------------------------------------------------


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_csv(photos):
    path = write(photos, "a.csv", 'image,text\n0.png,"one, ""two""\nthree"\n1.png,four\n')
    data = read(path)
    assert pairs(data) == [("0.png", 'one, "two"\nthree'), ("1.png", "four")]
    assert data.rows_read == 2 and not data.rejected and not data.warnings
    assert data.splits["train"].tolist() == [0, 1]
    assert data.origin[1] == (str(path), 2)


def test_bom_crlf_semicolons_and_trailing_commas(photos):
    assert len(read(write(photos, "a.csv", b"\xef\xbb\xbfimage,text\r\n0.png,a\r\n"))) == 1
    assert pairs(read(write(photos, "b.csv", "image;text\n0.png;a, b\n"))) == [("0.png", "a, b")]
    assert len(read(write(photos, "c.csv", "image,text,,\n0.png,a,,\n"))) == 1
    assert len(read(write(photos, "d.csv", "image,text\n\n0.png,a\n\n\n1.png,b"))) == 2


def test_ragged_rows_wrong_bytes_and_nuls_are_rejected_and_the_rest_read(photos):
    rows = [b"0.png,good", b"1.png", b"2.png,a,b", b"3.png,caf\xe9", b"4.png,a\x00b"]
    content = b"\n".join([b"image,text", *rows, "5.png,café".encode()])
    data = read(write(photos, "a.csv", content))
    assert pairs(data) == [("0.png", "good"), ("5.png", "café")]
    assert data.rows_read == 6
    found = reasons(data)
    assert "1 cells, the header 2" in found[2] and "3 cells" in found[3]
    assert "UTF-8" in found[4] and "NUL" in found[5]


def test_an_unclosed_quote_costs_one_row(photos):
    rows = [f"{i}.png,text {i}" for i in range(12)]
    rows[3] = '3.png,"never closed'
    data = read(write(photos, "a.csv", "\n".join(["image,text", *rows])))
    assert len(data) == 11 and data.rows_read == 12
    assert "never closed" in reasons(data)[4]
    many = ["image,text", '0.png,"open', *(f"1.png,text {i}" for i in range(1000))]
    data = read(write(photos, "b.csv", "\n".join(many)))
    assert len(data) == 1000 and data.rows_read == 1001
    mid = read(write(photos, "c.csv", 'image,text\n0.png,a 5" pipe\n1.png,"b"c\n2.png,d\n'))
    assert pairs(mid) == [("0.png", 'a 5" pipe'), ("2.png", "d")]
    assert "quotes" in reasons(mid)[2]


def test_tsv_with_and_without_quotes(photos):
    content = (
        'image\ttext\n0.png\t"quoted\ttab"\n1.png\t"Yes," he said\n2.png\t"open\n3.png\tlast\n'
    )
    data = read(write(photos, "a.tsv", content))
    assert pairs(data) == [
        ("0.png", "quoted\ttab"),
        ("1.png", '"Yes," he said'),
        ("2.png", '"open'),
        ("3.png", "last"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("image,text,text\n", "'text' twice"),
        ("image,text\n0.png,a\n".encode("utf-16"), "UTF-16"),
        (b"imag\xe9,text\n0.png,a\n", "header is not UTF-8"),
        ("image,text\n", "no row"),
        ("image,text\n0.png,\n1.png,\n", "no row can be used"),
        ("image,text\n", r"no row can be read\nIt has no rows:"),
        ("image,text\nmissing.png,a\n", "does not exist"),
    ],
)
def test_unusable_csv(photos, content, message):
    with pytest.raises(DataError, match=message):
        read(write(photos, "a.csv", content))


def test_a_line_without_end_costs_one_row_not_a_gigabyte(photos, monkeypatch):
    monkeypatch.setattr(delimited, "MAX_LINE", 1 << 16)
    long = b"x" * (1 << 17)
    data = read(write(photos, "a.csv", b"image,text\n0.png,a\n1.png," + long + b"\n2.png,b\n"))
    assert pairs(data) == [("0.png", "a"), ("2.png", "b")]
    assert data.rows_read == 3 and "longer than" in reasons(data)[2]
    lines = [
        b'{"image": "0.png", "text": "a"}',
        b'{"image": "' + long,
        b'{"image": "1.png", "text": "b"}',
    ]
    data = read(write(photos, "a.jsonl", b"\n".join(lines)))
    assert pairs(data) == [("0.png", "a"), ("1.png", "b")] and "longer than" in reasons(data)[2]
    open_quote = b'image,text\n0.png,"a\n1.png,' + long + b"\n2.png,b"
    data = read(write(photos, "b.csv", open_quote))
    assert pairs(data) == [("2.png", "b")]
    assert "never closed" in reasons(data)[1] and "longer than" in reasons(data)[2]
    with pytest.raises(DataError, match="header is longer"):
        read(write(photos, "c.csv", long + b"\n0.png,a"))


def test_missing_and_damaged_files_are_rejected_rows(photos):
    (photos / "empty.png").touch()
    content = "image,text\n0.png,a\nnone.png,b\nempty.png,c\n.,d\n"
    data = read(write(photos, "a.csv", content))
    assert pairs(data) == [("0.png", "a")]
    found = reasons(data)
    assert "does not exist" in found[2] and "is empty" in found[3] and "not a file" in found[4]
    assert {r.modality for r in data.rejected} == {"image"}


@pytest.mark.parametrize("name", ["../x.png", "/etc/hostname", "a/../../x.png", "http://a/b.png"])
def test_paths_that_leave_the_folder_are_refused(photos, name):
    data = read(write(photos, "a.csv", f"image,text\n0.png,a\n{name},b\n"))
    assert len(data) == 1
    assert "--allow-outside" in reasons(data)[2] or "URL" in reasons(data)[2]


def test_paths_outside_are_let_in_on_request(photos):
    (photos / "sub").mkdir()
    path = write(photos / "sub", "a.csv", f"image,text\n../0.png,a\n{photos}/1.png,b\n")
    assert len(read(path, allow_outside=True)) == 2
    inside = write(photos, "b.csv", f"image,text\n{photos}/1.png,b\n")
    assert len(read(inside)) == 1


def test_several_captions(photos):
    content = 'image,text,alt\n0.png,"[""a"", ""b""]",c\n0.png,d,[]\n1.png,[not a list],e\n'
    data = read(write(photos, "a.csv", content), columns={"text": "text,alt"})
    assert pairs(data) == [
        ("0.png", "a"),
        ("0.png", "b"),
        ("0.png", "c"),
        ("0.png", "d"),
        ("1.png", "[not a list]"),
        ("1.png", "e"),
    ]
    assert len(data.items["image"]) == 2


def test_items_are_one_by_content_and_by_normal_form(photos):
    (photos / "copy.png").write_bytes(png(0))
    content = "image,text\n0.png,cafe\u0301 \ncopy.png,caf\u00e9\n1.png,other\n"
    data = read(write(photos, "a.csv", content))
    assert data.links.tolist() == [[0, 0], [1, 1]]
    assert data.counts == {"seen": 3, "used": 2, "repeated": 1, "rejected": 0, "incomplete": 0}


# -- columns -------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["filename,caption", "File,Title", "img,alt", "path,sentence"])
def test_well_known_columns(photos, names):
    assert len(read(write(photos, "a.csv", f"{names}\n0.png,a\n"))) == 1


def test_the_fuller_of_two_text_columns_is_taken_and_said(photos):
    data = read(write(photos, "a.csv", "image,caption,alt\n0.png,,a\n1.png,b,c\n"))
    assert pairs(data) == [("0.png", "a"), ("1.png", "c")]
    assert "--column text=alt,caption" in data.warnings[0]


def test_unknown_columns_are_told_with_what_to_type(photos):
    path = write(photos, "a.csv", "image,words\n0.png,a\n")
    with pytest.raises(DataError) as error:
        read(path)
    assert "Columns: image, words" in error.value.hint
    assert "--column text=words" in error.value.hint
    with pytest.raises(DataError) as error:
        read(path, columns={"text": "word"})
    assert "Did you mean --column text=words?" in error.value.hint
    with pytest.raises(DataError, match="no encoder"):
        read(path, columns={"audio": "image"})
    with pytest.raises(DataError, match="--group-by"):
        read(path, columns={"text": "words"}, group_by="book")


def test_a_modality_of_ones_own_name_finds_its_medium(photos):
    path = write(photos, "a.csv", "image,text\n0.png,a\n")
    assert read(path, {"radiograph": "image", "text": "text"}).modalities == ("radiograph", "text")
    path = write(photos, "b.csv", "smiles,description\nCCO,ethanol\n")
    assert len(read(path, {"molecule": "text", "text": "text"})) == 1


# -- three modalities ----------------------------------------------------------------------------


def test_missing_entries(photos):
    takes = {"image": "image", "text": "text", "audio": "audio"}
    (photos / "a.wav").write_bytes(b"sound")
    content = "image,text,audio\n0.png,a,\n,b,a.wav\n1.png,,a.wav\n2.png,,\n3.png,c,a.wav\n"
    data = read(write(photos, "a.csv", content), takes)
    assert pairs(data) == [
        ("0.png", "a", ""),
        ("", "b", "a.wav"),
        ("1.png", "", "a.wav"),
        ("3.png", "c", "a.wav"),
    ]
    assert reasons(data) == {4: "the row has no text and no audio"}


def test_sources_may_hold_different_modalities(photos):
    takes = {"image": "image", "text": "text", "audio": "audio"}
    (photos / "a.wav").write_bytes(b"sound")
    one = write(photos, "a.csv", "image,text\n0.png,a\n")
    two = write(photos, "b.csv", "audio,text\na.wav,a\n")
    config = DataConfig(source=(str(one), str(two)), validation_fraction=0, test_fraction=0)
    assert read_pairs(config, takes).links.tolist() == [[0, 0, -1], [-1, 0, 0]]
    with pytest.raises(DataError, match="no column for audio"):
        read(one, takes)


# -- JSON ----------------------------------------------------------------------------------------


def test_jsonl(photos):
    lines = [
        b'\xef\xbb\xbf{"image": "0.png", "text": ["a", " ", "b"]}',
        b'{"image": "1.png", "text": 3}',
        b'{"image": "2.png"',
        b"[1]",
        b'{"image": "3.png", "text": "caf\xe9"}',
        b"",
        b'{"image": "4.png", "text": null}',
        b'{"image": "5.png", "text": {"a": 1}}',
        b'{"image": 6, "text": "a"}',
        rb'{"image": "7.png", "text": "\ud800"}',
        b"[" * 100_000,
        b'{"image": "8.png", "text": NaN}',
        b'{"image": ["9.png", "10.png"], "text": ["c", "d"]}',
    ]
    data = read(write(photos, "a.jsonl", b"\n".join(lines)))
    assert pairs(data) == [
        ("0.png", "a"),
        ("0.png", "b"),
        ("1.png", "3"),
        *(("9.png", "c"), ("9.png", "d"), ("10.png", "c"), ("10.png", "d")),
    ]
    found = reasons(data)
    assert sorted(found) == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert "not JSON" in found[3] and "not a JSON object" in found[4] and "UTF-8" in found[5]
    assert "no text" in found[6] and "dict" in found[7] and "int" in found[8]
    assert "surrogate" in found[9] and "not JSON" in found[10]


def test_a_row_that_links_too_much_is_rejected(photos):
    rows = [
        {"image": ["0.png"], "text": ["a"]},
        {"image": [f"{i}.png" for i in range(12)], "text": [str(i) for i in range(1000)]},
    ]
    data = read(write(photos, "a.json", json.dumps(rows)))
    assert len(data) == 1 and "combinations" in reasons(data)[2]


def test_karpathy(photos):
    (photos / "val").mkdir()
    (photos / "val" / "x.png").write_bytes(png(99))
    images = [
        {"filename": "x.png", "filepath": "val", "split": "test", "sentences": [{"raw": "a"}]},
        {"filename": "0.png", "split": "restval", "sentences": [{"raw": "b"}, {"raw": "c"}]},
        {"filename": "1.png", "split": "val", "sentences": [{"raw": "d"}]},
        {"filename": "2.png", "split": "train", "sentences": [{"tokens": []}]},
        {"split": "train", "sentences": []},
    ]
    path = write(photos, "dataset_x.json", json.dumps({"images": images, "dataset": "x"}))
    data = read(path)
    assert pairs(data) == [("x.png", "a"), ("0.png", "b"), ("0.png", "c"), ("1.png", "d")]
    assert {n: p.tolist() for n, p in data.splits.items()} == {
        "train": [1, 2],
        "validation": [3],
        "test": [0],
    }
    assert sorted(reasons(data)) == [4, 5]


@pytest.mark.parametrize("content", ["{", '{"a": 1}', "3", "[" * 100_000])
def test_other_json_is_an_error(photos, content):
    with pytest.raises(DataError, match="JSON|Karpathy"):
        read(write(photos, "a.json", content))


# -- Parquet -------------------------------------------------------------------------------------


def test_parquet_of_paths_lists_and_nulls(photos):
    table = {"image": ["0.png", "1.png", None], "text": [["a", "b"], ["c"], ["d"]]}
    pq.write_table(pa.table(table), photos / "a.parquet")
    data = read(photos / "a.parquet")
    assert pairs(data) == [("0.png", "a"), ("0.png", "b"), ("1.png", "c")]
    assert reasons(data) == {3: "the row has no image"}


@pytest.mark.parametrize("struct", [False, True])
def test_parquet_of_bytes_is_read_in_place(photos, struct):
    import pickle

    images = [png(i) for i in range(10)]
    cells = [{"bytes": b, "path": None} for b in images] if struct else images
    if struct:
        cells[9] = {"bytes": None, "path": "9.png"}
    table = pa.table({"image": cells, "text": [str(i) for i in range(10)]})
    pq.write_table(table, photos / "a.parquet", row_group_size=3)
    data = pickle.loads(pickle.dumps(read(photos / "a.parquet")))  # noqa: S301
    for i in (7, 0, 9, 4):
        assert data.items["image"].read_bytes(i) == images[i]
        assert data.items["image"].load(i).getpixel((0, 0))[0] == i
    by_path = read(write(photos, "a.csv", "image,text\n4.png,x\n"))
    assert by_path.items["image"].keys[0].tolist() == data.items["image"].keys[4].tolist()


def test_broken_parquet(photos):
    with pytest.raises(DataError, match="Parquet"):
        read(write(photos, "a.parquet", b"PAR1 nothing"))


# -- folders -------------------------------------------------------------------------------------


def test_folder_with_sidecars(photos):
    (photos / "sub").mkdir()
    (photos / "sub" / "0.PNG").write_bytes(png(50))
    write(photos, "0.txt", "\ufeffa\n\n b \n")
    write(photos, "1.txt", b"caf\xe9")
    write(photos / "sub", "0.txt", "c")
    write(photos, ".hidden.png", b"x")
    data = read(photos)
    assert pairs(data) == [("0.png", "a"), ("0.png", "b"), ("0.PNG", "c")]
    assert data.rows_read == 13
    assert sum("no text" in r.reason for r in data.rejected) == 10
    assert any("UTF-8" in r.reason for r in data.rejected)


def test_folder_of_splits(photos, tmp_path_factory):
    root = tmp_path_factory.mktemp("split")
    for i, split in enumerate(["train", "train", "val", "test"]):
        (root / split / "class").mkdir(parents=True, exist_ok=True)
        write(root / split / "class", f"{i}.png", png(i))
        write(root / split / "class", f"{i}.txt", f"text {i}")
    parts = read(root).splits
    assert [len(p) for p in parts.values()] == [2, 1, 1]


def test_folder_without_media_and_gallery(photos, tmp_path_factory):
    with pytest.raises(DataError, match="no images"):
        read(tmp_path_factory.mktemp("none"))
    config = DataConfig(source=(str(photos),), validation_fraction=0, test_fraction=0)
    assert len(read_pairs(config, {"image": "image"}, least=1)) == 12


def test_a_folder_with_a_manifest_stands_for_it(photos):
    write(photos, "manifest.csv", "image,text\n0.png,a\n")
    assert pairs(read(photos)) == [("0.png", "a")]
    write(photos, "metadata.jsonl", "{}")
    with pytest.raises(DataError, match="several manifests"):
        read(photos)


# -- shards --------------------------------------------------------------------------------------


def add(archive, name, data=b"", kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, target
    archive.addfile(info, io.BytesIO(data))


def test_shards(tmp_path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"s-{shard:03}.tar", "w") as archive:
            for i in range(shard * 5, shard * 5 + 5):
                add(archive, f"./x/{i}.jpg", png(i))
                if i % 2:
                    add(archive, f"./x/{i}.txt", f"text {i}\n".encode())
                else:
                    add(archive, f"./x/{i}.json", json.dumps({"caption": f"text {i}"}).encode())
    for source in (tmp_path, tmp_path / "*.tar", tmp_path / "s-{000..001}.tar"):
        data = read(source, columns={"text": "text,caption"})
        assert [t for _, t in pairs(data)] == [f"text {i}" for i in range(10)]
        for i in range(10):
            assert data.items["image"].read_bytes(i) == png(i)
            assert data.items["image"].load(i).getpixel((0, 0))[0] == i
        assert data.origin[7] == (str(tmp_path / "s-001.tar"), 3)


def test_references_outlive_a_change_of_folder(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "a.png", png(1))
        add(archive, "a.txt", b"text")
    pq.write_table(pa.table({"image": [png(1)], "text": ["text"]}), tmp_path / "a.parquet")
    write(tmp_path, "a.png", png(1))
    write(tmp_path, "a.csv", "image,text\na.png,text\n")
    monkeypatch.chdir(tmp_path)
    read_in = [read(name) for name in ("a.tar", "a.parquet", "a.csv")]
    monkeypatch.chdir("/")
    assert all(data.items["image"].read_bytes(0) == png(1) for data in read_in)


def test_hostile_and_broken_members_are_rejected(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "good.png", png(1))
        add(archive, "good.txt", b"good")
        add(archive, "../up.png", png(2))
        add(archive, "/abs.png", png(3))
        add(archive, "link.png", kind=tarfile.SYMTYPE, target="/etc/passwd")
        add(archive, "hard.png", kind=tarfile.LNKTYPE, target="good.png")
        add(archive, "dev.png", kind=tarfile.CHRTYPE)
        add(archive, "twice.png", png(4))
        add(archive, "twice.png", png(5))
        add(archive, "twice.txt", b"twice")
        add(archive, "latin.png", png(6))
        add(archive, "latin.txt", b"caf\xe9")
        add(archive, "._good.png", b"resource fork")
        add(archive, "bad.png", png(7))
        add(archive, "bad.json", b"{")
        add(archive, "outside.json", b'{"image": "/etc/hostname", "text": "a"}')
        add(archive, "last.png", png(8))
        add(archive, "last.txt", b"last" * 600)
    whole = path.read_bytes()
    data = read(path)
    assert [t[:5] for _, t in pairs(data)] == ["good", "twice", "lastl"]
    said = " ".join(r.reason for r in data.rejected)
    for part in (
        "../up.png",
        "/abs.png",
        "link or special",
        "there twice",
        "UTF-8",
        "JSON",
        "outside",
    ):
        assert part in said
    assert data.rows_read == len({r.row for r in data.rejected} | set(data.origin.row.tolist()))
    path.write_bytes(whole[: whole.rindex(b"last" * 600) + 100])
    short = read(path)
    assert [t for _, t in pairs(short)] == ["good", "twice"]
    assert "cut short" in " ".join(r.reason for r in short.rejected)


def test_compressed_archives_are_read_up_to_a_limit(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for i in range(3):
            add(archive, f"{i}.png", png(i))
            add(archive, f"{i}.txt", b"text %d" % i)
        add(archive, "link.png", kind=tarfile.SYMTYPE, target="/etc/passwd")
    data = read(tmp_path / "a.tar.gz")
    assert [t for _, t in pairs(data)] == ["text 0", "text 1", "text 2"]
    assert data.items["image"].read_bytes(1) == png(1)
    assert "link or special" in reasons(data)[4]
    whole = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "b.tgz").write_bytes(whole[:-40])
    assert "damaged or cut short" in " ".join(reasons(read(tmp_path / "b.tgz")).values())
    monkeypatch.setattr(shards, "MAX_UNPACKED", 200)
    with pytest.raises(DataError) as error:
        read(tmp_path / "a.tar.gz")
    assert "gunzip" in error.value.hint


def test_foreign_archives(tmp_path):
    with pytest.raises(DataError, match="tar"):
        read(write(tmp_path, "b.tar", b"x" * 5000))
    with pytest.raises(DataError, match="HTML page"):
        read(write(tmp_path, "c.tar", b"<!DOCTYPE html>" * 100))


def test_an_encoder_that_opens_files_refuses_members(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "a.mp4", b"film")
        add(archive, "a.txt", b"text")
    with pytest.raises(DataError, match="extract it"):
        read(tmp_path / "a.tar", {"video": "file", "text": "text"})


# -- saved datasets ------------------------------------------------------------------------------


@pytest.fixture
def saved(photos):
    import datasets

    features = datasets.Features(
        image=datasets.Image(),
        caption=datasets.Value("string"),
        kind=datasets.ClassLabel(names=["cat", "dog"]),
    )

    def make(numbers):
        rows = {
            "image": [{"bytes": png(i), "path": None} for i in numbers],
            "caption": [f"text {i}" for i in numbers],
            "kind": [i % 2 for i in numbers],
        }
        return datasets.Dataset.from_dict(rows, features=features)

    make(range(6)).save_to_disk(photos / "one")
    parts = {"train": make(range(6)), "validation": make([6]), "test": make([7, 8])}
    datasets.DatasetDict(parts).save_to_disk(photos / "dict")
    return photos


def test_saved_dataset(saved):
    import pickle

    data = pickle.loads(pickle.dumps(read(saved / "one")))  # noqa: S301
    assert [t for _, t in pairs(data)] == [f"text {i}" for i in range(6)]
    assert data.items["image"].read_bytes(3) == png(3)
    assert data.items["image"].load(3).getpixel((0, 0))[0] == 3
    labels = read(saved / "one", columns={"text": "kind"})
    assert [t for _, t in pairs(labels)] == ["cat", "dog"] * 3


def test_saved_dataset_dict_brings_its_splits(saved):
    data = read(saved / "dict")
    sizes = {name: len(part) for name, part in data.splits.items()}
    assert sizes == {"train": 6, "validation": 1, "test": 2}
    assert [data.items["text"].describe(i) for i in data.links[data.splits["test"], 1]] == [
        "text 7",
        "text 8",
    ]


def test_a_saved_dataset_is_read_without_the_package_that_saved_it(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert len(read(saved / "one")) == 6


def test_a_saved_dataset_opens_no_file_elsewhere_and_makes_no_class(saved):
    arrow = next((saved / "dict" / "test").glob("*.arrow"))
    state, info = saved / "one" / "state.json", saved / "one" / "dataset_info.json"
    facts = json.loads(info.read_text())
    facts["features"]["caption"] = {"_type": "ClassLabel", "names_file": "/etc/passwd"}
    facts["features"]["kind"]["_type"] = "os"
    info.write_text(json.dumps(facts))
    assert len(read(saved / "one")) == 6
    for name in ("../dict/test/" + arrow.name, str(arrow), "", ".", "none.arrow"):
        state.write_text(json.dumps({"_data_files": [{"filename": name}]}))
        with pytest.raises(DataError, match="not a file of it"):
            read(saved / "one")


def test_a_damaged_saved_dataset_is_an_error_not_a_crash(saved):
    """Arrow maps what it is given: an offset beyond the end was once the end of the process."""
    arrow = next((saved / "one").glob("*.arrow"))
    data = arrow.read_bytes()
    texts = data.rindex(b"text 0text 1")
    broken = bytearray(data)
    for at in range(texts - 64, texts):
        broken[at] = 0x7F
    arrow.write_bytes(broken)
    with pytest.raises(DataError, match="saved dataset"):
        read(saved / "one")


# -- sources and plugins -------------------------------------------------------------------------


def test_braces():
    assert list(braces("a-{08..11}.tar")) == [f"a-{n:02}.tar" for n in (8, 9, 10, 11)]
    assert list(braces("{a,b}{1..2}")) == ["a1", "a2", "b1", "b2"]
    assert list(braces("plain")) == ["plain"]
    with pytest.raises(DataError, match="more than"):
        list(braces("{0..99999999}"))


def test_sources_that_are_not_there(photos):
    write(photos, "pairs_a.csv", "image,text\n")
    with pytest.raises(DataError) as error:
        expand(str(photos / "pair_a.csv"))
    assert "Did you mean" in error.value.hint and "pairs_a.csv" in error.value.hint
    with pytest.raises(DataError, match="no file matches"):
        expand(str(photos / "*.tar"))
    with pytest.raises(DataError) as error:
        read(write(photos, "a.docx", "x"))
    assert ".csv" in error.value.hint


class Notes:
    """A reader as a plugin would bring it."""

    def matches(self, path):
        return path.suffix == ".notes"

    def rows(self, path):
        from fusemix_core.data.rows import Row

        if "wrong" in path.name:
            yield {"image": "0.png"}
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            name, text = line.split(" = ")
            yield Row(str(path), number, {"image": name, "text": text})


@pytest.fixture
def own_registry(monkeypatch):
    own = Registry(lambda: [p for p in installed() if p.dist.name == CORE])
    monkeypatch.setattr("fusemix_core.data.sources.registry", own)
    return own


def test_a_plugin_brings_a_reader(photos, own_registry):
    own_registry.add_component("reader", "notes", Notes)
    assert pairs(read(write(photos, "a.notes", "0.png = a\n1.png = b"))) == [
        ("0.png", "a"),
        ("1.png", "b"),
    ]
    with pytest.raises(ContractError, match="Notes"):
        read(write(photos, "wrong.notes", ""))


def test_a_broken_reader_of_a_plugin_is_a_warning(photos, own_registry):
    own_registry.add(ComponentSpec(kind="reader", name="gone", target="no_such_module:Reader"))
    data = read(write(photos, "a.csv", "image,text\n0.png,a\n"))
    assert "gone" in data.warnings[0]
    with pytest.raises(DataError) as error:
        read(write(photos, "a.gone", "x"))
    assert "gone" in error.value.hint
