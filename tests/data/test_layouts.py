"""Folders and shards as the hub, Kaggle and other tools lay them out."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.folders import archive, pairs, put, read, reasons, said, sizes, texts

from fusemix_core.data.rows import split_named
from fusemix_core.errors import DataError

# -- files of a folder -----------------------------------------------------------------------------


def test_every_file_of_one_name_is_linked_whatever_its_case(tmp_path):
    put(tmp_path, "a.JPG", "a.jpeg", "b.png")
    (tmp_path / "a.txt").write_text("A")
    (tmp_path / "b.TXT").write_text("B")
    assert sorted(pairs(read(tmp_path))) == [("a.JPG", "A"), ("a.jpeg", "A"), ("b.png", "B")]


def test_files_beside_a_text_are_bad_others_are_passed_over(tmp_path):
    put(tmp_path, "a.jpg", text=True)
    put(tmp_path, "k.cr2", text=True)
    put(tmp_path, "y.nii.gz")
    (tmp_path / "y.txt").write_text("volume")
    put(tmp_path, "README.md", "README.txt", "LICENSE", "Thumbs.db", "a.json")
    data = read(tmp_path, max_bad=1.0)
    bad = [one.reason.split(":")[0] for one in data.rejected if one.bad]
    assert bad[:2] == ["k.cr2 with k.txt", "y.nii.gz with y.txt"]
    passed = {one.reason.split(":")[0] for one in data.rejected if not one.bad}
    assert passed == {"README.md", "README.txt", "LICENSE", "Thumbs.db", "a.json"}
    assert "5 files or rows are passed over" in said(data)
    lines = [json.loads(line) for line in _written(data, tmp_path)]
    assert sum(line.get("bad", True) for line in lines) == data.bad_rows


def _written(data, folder):
    data.write_rejected(folder / "rejected.jsonl")
    return (folder / "rejected.jsonl").read_text().splitlines()


def test_a_folder_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    put(tmp_path, "a.jpg", "sub/b.jpg", text=True)
    real = os.scandir

    def scandir(folder):
        if str(folder).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr("os.scandir", scandir)
    data = read(tmp_path, max_bad=1.0)
    assert len(data) == 1
    assert reasons(data) == ["sub: the folder can't be read: Permission denied"]


def test_linked_folders_inside_are_read_once_for_each_split(tmp_path):
    put(tmp_path, "train/0.jpg", "train/1.jpg", "val/2.jpg", text=True)
    (tmp_path / "val" / "again").symlink_to("../train")
    (tmp_path / "train" / "loop").symlink_to("../train")
    data = read(tmp_path)
    assert sizes(data) == (2, 3, 0)
    assert "2 of the 3 image items of the validation split are also in training rows" in said(data)
    assert [one.bad for one in data.rejected] == [False, False]  # the loop, from either side


def test_a_link_that_leads_nowhere_is_told(tmp_path):
    put(tmp_path, "a.jpg", text=True)
    (tmp_path / "more").symlink_to("nowhere")
    data = read(tmp_path, max_bad=1.0)
    assert data.bad_rows == 1 and reasons(data) == ["more: the link leads nowhere"]


@pytest.mark.parametrize(
    "form", ["{kind}/{name}", "{split}/{kind}/{name}", "{kind}/{split}/{name}"]
)
def test_texts_in_a_folder_of_their_own(tmp_path, form):
    for split in ("train", "test"):
        for i in range(2):
            image = form.format(kind="images", split=split, name=f"{split}{i}.jpg")
            text = tmp_path / form.format(kind="texts", split=split, name=f"{split}{i}.txt")
            put(tmp_path, image)
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text(f"{split} {i}")
    data = read(tmp_path)
    assert sorted(pairs(data)) == [
        (f"{split}{i}.jpg", f"{split} {i}") for split in ("test", "train") for i in range(2)
    ]
    assert sizes(data) == ((2, 0, 2) if "{split}" in form else (4, 0, 0))
    assert "in another folder" in said(data) and not data.rejected


# -- splits ----------------------------------------------------------------------------------------


def test_a_text_of_one_split_never_goes_to_an_image_of_another(tmp_path):
    put(tmp_path / "train", "x.png", "y.png")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "x.txt").write_text("the text of a test image that is missing")
    (tmp_path / "test" / "y.txt").write_text("another one")
    with pytest.raises(DataError, match="test/x.txt"):
        read(tmp_path, max_bad=1.0)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train2017", "train"),
        ("Test", "test"),
        ("test_set", "test"),
        ("val-images", "validation"),
        ("validation-00000-of-00002", "validation"),
        ("trainer", None),
        ("tests", None),
        ("testimony", None),
    ],
)
def test_names_of_splits(name, split):
    assert split_named(name) == split


def test_splits_of_nested_folders_hold(tmp_path):
    put(tmp_path / "images", "train2017/0.jpg", "train2017/1.jpg", "val2017/2.jpg", text=True)
    assert sizes(read(tmp_path)) == (2, 1, 0)


def test_a_lone_test_folder_is_no_split_but_one_beside_others_is(tmp_path):
    put(tmp_path, "test/0.jpg", "test/1.jpg", text=True)
    data = read(tmp_path)
    assert sizes(data) == (2, 0, 0) and "nothing would be left to train on" in said(data)
    put(tmp_path, "2.jpg", text=True)
    data = read(tmp_path)
    assert sizes(data) == (1, 0, 2) and "1 file lies outside" in said(data)


def test_folders_of_classes_in_folders_of_splits(tmp_path):
    put(tmp_path, *(f"{s}/{c}/{i}.jpg" for s in ("train", "test") for c in "ab" for i in range(2)))
    data = read(tmp_path)
    assert sizes(data) == (4, 0, 4) and set(texts(data)) == {"a", "b"}
    assert not data.rejected


# -- tables in a folder ----------------------------------------------------------------------------


def test_image_folders_of_the_hub(tmp_path):
    for split in ("train", "test"):
        put(tmp_path / split, f"{split}0.jpg", f"{split}1.jpg")
        (tmp_path / split / "metadata.csv").write_text(
            f"file_name,text\n{split}0.jpg,{split} a\n{split}1.jpg,{split} b\n"
        )
    (tmp_path / "README.md").write_text("a card")
    put(tmp_path, "stray.jpg")
    data = read(tmp_path)
    assert sizes(data) == (2, 0, 2) and data.bad_rows == 0
    assert reasons(data) == [
        "README.md: fusemix doesn't read .md files",
        "stray.jpg: no row of the tables names this file",
    ]


def test_parquet_of_the_hub_has_its_splits(tmp_path):
    (tmp_path / "data").mkdir()
    for split in ("train", "validation", "test"):
        rows = {"image": [b"%s %d" % (split.encode(), i) for i in range(3)],
                "text": [f"{split} {i}" for i in range(3)]}  # fmt: skip
        pq.write_table(pa.table(rows), tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    assert sizes(read(tmp_path)) == (3, 3, 3)


def test_tables_named_after_splits(tmp_path):
    put(tmp_path / "imgs", "0.jpg", "1.jpg", "2.jpg")
    (tmp_path / "train.csv").write_text("image,text\nimgs/0.jpg,a\nimgs/1.jpg,b\n")
    (tmp_path / "test.csv").write_text("image,text\nimgs/2.jpg,c\n")
    assert sizes(read(tmp_path)) == (2, 0, 1)


def test_the_only_table_of_a_folder_stands_for_it_of_two_one_is_asked_for(tmp_path):
    put(tmp_path, "0.jpg", "1.jpg")
    (tmp_path / "a.csv").write_text("image,text\n0.jpg,a\n1.jpg,b\n")
    assert texts(read(tmp_path)) == ["a", "b"]
    (tmp_path / "b.csv").write_text("image,text\n0.jpg,c\n")
    with pytest.raises(DataError, match=r"several tables: a\.csv, b\.csv"):
        read(tmp_path)


def test_flickr8k_and_flickr30k_as_they_are_downloaded(tmp_path):
    eight = put(tmp_path / "8k", "Images/0.jpg", "Images/1.jpg")
    (eight / "captions.txt").write_text("image,caption\n0.jpg,A dog .\n1.jpg,A cat .\n")
    for source in (eight, eight / "captions.txt"):
        data = read(source)
        assert texts(data) == ["A dog .", "A cat ."] and "read from the folder" in said(data)
    thirty = put(tmp_path / "30k", "flickr30k_images/0.jpg", "flickr30k_images/1.jpg")
    (thirty / "results.csv").write_text(
        'image_name| comment_number| comment\n0.jpg| 0| A "dog\n0.jpg| 1   A dog\n1.jpg| 0| B\n'
    )
    data = read(thirty, max_bad=1.0)
    assert texts(data) == ['A "dog', "B"] and reasons(data) == ["the row has 2 cells, the header 3"]


def test_coco_as_it_is_unpacked(tmp_path):
    put(tmp_path, "val2017/000009.jpg", "val2017/000025.jpg")
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "captions_val2017.json"
    images = [{"id": i, "file_name": f"{i:06}.jpg"} for i in (9, 25, 30)]
    of = [(9, "A"), (9, "B"), (25, "C"), (77, "lost")]
    annotations = [{"image_id": i, "caption": caption} for i, caption in of]
    path.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations}))
    data = read(path, max_bad=1.0)
    assert pairs(data) == [("000009.jpg", "A"), ("000009.jpg", "B"), ("000025.jpg", "C")]
    assert sorted(reasons(data)) == ["000030.jpg: the row has no text", "the caption has no image"]
    path.write_text(json.dumps({"images": images, "annotations": [{"image_id": 9, "bbox": []}]}))
    with pytest.raises(DataError, match="no captions"):
        read(path)


LISTS = [
    '[{"image": "0.jpg", "text": "a"},\n{"image": "1.jpg", "text": "b"},\n]',
    '[\n{"image": "0.jpg", "text": "a"},\n{"image": "1.jpg", "text": "b"}\n]\n',
    '{\n "image": "0.jpg",\n "text": "a"\n}\n{\n "image": "1.jpg",\n "text": "b"\n}\n',
    '{"image": "0.jpg", "text": "a"},\n{"image": "1.jpg", "text": "b"},\n',
]
DOCUMENTS = [
    '{"data": [{"image": "0.jpg", "text": "a"}, {"image": "1.jpg", "text": "b"}], "v": 1}',
    '{"image": ["0.jpg", "1.jpg"], "text": ["a", "b"]}',
    '{"image": {"0": "0.jpg", "1": "1.jpg"}, "text": {"0": "a", "1": "b"}}',
    '{"0.jpg": "a", "1.jpg": ["b"]}',
]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", one) for one in LISTS] + [("a.json", one) for one in LISTS + DOCUMENTS],
)
def test_documents(tmp_path, name, content):
    put(tmp_path, "0.jpg", "1.jpg")
    (tmp_path / name).write_text(content)
    data = read(tmp_path / name)
    assert pairs(data) == [("0.jpg", "a"), ("1.jpg", "b")] and not data.rejected


def test_a_broken_line_costs_its_row_in_a_json_too(tmp_path):
    put(tmp_path, "0.jpg", "1.jpg", "2.jpg")
    lines = ['{"image": "0.jpg", "text": "a"}', '{"image": "1.jpg", "te', '{"image": "2.jpg"}']
    (tmp_path / "a.json").write_text("\n".join(lines))
    data = read(tmp_path / "a.json", max_bad=1.0)
    assert texts(data) == ["a"] and [one.row for one in data.rejected] == [2, 3]


# -- shards ----------------------------------------------------------------------------------------


def test_shards_have_the_splits_of_their_names_and_folders(tmp_path):
    for place in ("cc-train-0000.tar", "val/0.tar", "cc_test_7.tar.gz"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        members = {"0.jpg": place.encode(), "0.txt": place.encode()}
        archive(tmp_path / place, members, "w:gz" if place.endswith("gz") else "w")
    (tmp_path / "0000_stats.json").write_text("{}")
    data = read(tmp_path)
    assert sizes(data) == (1, 1, 1) and data.bad_rows == 0 and len(data.rejected) == 1


def test_shards_and_files_with_texts_in_one_folder_are_both_read(tmp_path):
    archive(tmp_path / "a.tar", {"0.jpg": b"0", "0.txt": b"in the tar"})
    put(tmp_path, "b.jpg", text=True)
    assert sorted(texts(read(tmp_path)))[0] == "in the tar" and len(read(tmp_path)) == 2


def test_names_with_dates_are_keys_up_to_the_last_dot(tmp_path):
    members = {}
    for day in ("05_a", "06_b", "07_c"):
        members |= {f"2020.01.{day}.jpg": day.encode(), f"2020.01.{day}.txt": day.encode()}
    del members["2020.01.07_c.txt"]
    data = read(archive(tmp_path / "a.tar", members), max_bad=1.0)
    assert texts(data) == ["05_a", "06_b"] and reasons(data) == [
        "2020.01.07_c: the row has no text"
    ]


def test_a_sample_may_have_several_images_of_which_the_plain_one_counts(tmp_path):
    members = {f"{k}{e}": f"{k}{e}".encode() for k in "xy" for e in (".seg.png", ".png", ".txt")}
    path = archive(tmp_path / "a.tar", members)
    assert [name for name, _ in pairs(read(path))] == ["a.tar#x.png", "a.tar#y.png"]
    seg = read(path, columns={"image": "seg.png"})
    assert [name for name, _ in pairs(seg)] == ["a.tar#x.seg.png", "a.tar#y.seg.png"]


def test_no_member_of_a_sample_is_lost_in_silence(tmp_path):
    path = archive(tmp_path / "a.tar", {"0.jpg": b"0", "0.jpeg": b"1", "0.txt": b"a"})
    assert [name for name, _ in pairs(read(path))] == ["a.tar#0.jpg", "a.tar#0.jpeg"]
    members = {f"{k}.{e}": f"{k}{e}".encode() for k in "xy" for e in ("l.jpg", "r.jpg", "txt")}
    data = read(archive(tmp_path / "b.tar", {**members, "README.md": b"about"}))
    assert [name for name, _ in pairs(data)] == ["b.tar#x.l.jpg", "b.tar#y.l.jpg"]
    assert "several members for image (l.jpg, r.jpg): the first is read" in said(data)
    assert [(one.reason, one.bad) for one in data.rejected] == [("README: not a sample", False)]


def test_a_sample_without_a_known_image_names_its_members(tmp_path):
    members = {"x.psd": b"1", "x.txt": b"a", "y.jpg": b"2", "y.txt": b"b"}
    data = read(archive(tmp_path / "a.tar", members), max_bad=1.0)
    assert reasons(data) == ["x (psd, txt): the row has no image"]


def test_texts_in_shards_and_folders_in_another_encoding(tmp_path):
    archive(tmp_path / "a.tar", {"0.jpg": b"0", "0.txt": "café".encode("latin-1")})
    assert texts(read(tmp_path / "a.tar", encoding="latin-1")) == ["café"]
    put(tmp_path / "f", "0.jpg")
    (tmp_path / "f" / "0.txt").write_bytes("café".encode("latin-1"))
    assert texts(read(tmp_path / "f", encoding="latin-1")) == ["café"]
    with pytest.raises(DataError, match="--encoding"):
        read(tmp_path / "f")


@pytest.mark.parametrize(
    ("content", "what"),
    [("version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
     ("<!doctype html><p>Not found", "HTML page")],
)  # fmt: skip
def test_texts_that_were_not_downloaded_are_named(tmp_path, content, what):
    put(tmp_path, "0.jpg", "1.jpg", text=True)
    (tmp_path / "0.txt").write_text(content)
    data = read(tmp_path, max_bad=1.0)
    assert len(data) == 1 and what in reasons(data)[0]
