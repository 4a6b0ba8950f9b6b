"""Files and folders as real users have them: what each must give. See `cases/README.md`."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusemix_core.config import DataConfig
from fusemix_core.data import read_pairs
from fusemix_core.data.media import extras
from fusemix_core.errors import DataError
from fusemix_core.project import how_to_install

CASES = Path(__file__).parent / "cases"
TAKES = {"image": "image", "text": "text"}


def read(source, takes=TAKES, least=2, **options):
    options = {"validation_fraction": 0.0, "test_fraction": 0.0, "max_bad": 1.0, **options}
    data = read_pairs(DataConfig(source=(str(source),), **options), takes, least=least)
    counts = data.counts
    assert counts["seen"] == counts["used"] + counts["repeated"] + counts["rejected"]
    return data


def pairs(data):
    """Each link as (name of the image, text)."""
    image, text = data.items["image"], data.items["text"]
    return [(Path(str(image.describe(i))).name, text.describe(j)) for i, j in data.links.tolist()]


def texts(data):
    return [data.items["text"].describe(j) for j in data.links[:, 1]]


def said(data):
    return " ".join(data.warnings)


def reasons(data):
    return [one.reason for one in data.rejected]


def sizes(data):
    return {name: len(rows) for name, rows in data.splits.items()}


@pytest.fixture
def case(tmp_path):
    """A copy of a case's folder, by its number."""

    def copy(number):
        source = next(CASES.glob(f"{number:02}-*"))
        return Path(shutil.copytree(source, tmp_path / source.name))

    return copy


# -- nothing vanishes ------------------------------------------------------------------------------


def test_a_quote_in_a_tab_file_is_text_and_swallows_no_rows(case):
    data = read(case(1) / "pairs.tsv")
    assert texts(data) == [
        '"Stop right there',
        "a dog runs",
        "a cat",
        'the pipe is 12"',
        "a tree",
    ]
    assert not data.rejected


def test_a_quote_in_a_comma_file_costs_its_own_row_only(case):
    data = read(case(1) / "pairs.csv")
    assert texts(data) == ["a dog runs", "a cat", 'the pipe is 12"', "a tree"]
    assert [one.row for one in data.rejected] == [1] and "whole rows between" in reasons(data)[0]
    assert data.counts == {"seen": 5, "used": 4, "repeated": 0, "rejected": 1, "incomplete": 0}


def test_each_image_of_one_name_gets_the_text(case):
    data = read(case(2))
    assert sorted(name for name, _ in pairs(data)) == [
        "00.jpeg",
        "00.jpg",
        "01.jpg",
        "01.png",
        "02.jpg",
        "03.jpg",
    ]
    assert len(set(texts(data))) == 4


def test_files_that_no_reader_knows_and_lone_texts_are_rejected_by_name(case, monkeypatch):
    monkeypatch.setattr(extras, "_is_there", lambda module: False)
    data = read(case(3))
    told = " ".join(reasons(data))
    assert [name for name, _ in pairs(data)] == ["00.jpg", "01.jpg", "02.jpg"]
    assert data.bad_rows == 5
    assert all(name in told for name in ("h.heic", "m.m4a", "s.dcm", "v.svg", "alone.txt"))
    for extra in ("heic", "dicom", "av"):
        assert how_to_install(f"fusemix[{extra}]") in told


@pytest.fixture
def linked(case):
    folder = case(4)
    (folder / "set" / "more").symlink_to(folder / "real")
    return folder / "set"


def test_a_linked_folder_is_told_or_followed(linked):
    data = read(linked)
    assert len(data) == 2 and data.bad_rows == 1
    assert "more: the folder is a link that leads out" in reasons(data)[0]
    assert "--allow-outside" in reasons(data)[0]
    data = read(linked, allow_outside=True)
    assert len(data) == 6 and not data.rejected


def test_links_that_lead_in_circles_end(linked):
    (linked / "back").symlink_to("..")
    (linked / "self").symlink_to(".")
    (linked.parent / "real" / "set").symlink_to(linked)
    data = read(linked, allow_outside=True)
    assert len(data) == 6 and data.bad_rows == 0
    assert all("read already" in reason for reason in reasons(data))


def test_repeated_rows_are_united_and_counted(case):
    data = read(case(15) / "pairs.csv")
    assert len(data) == 20
    assert data.counts == {"seen": 60, "used": 20, "repeated": 40, "rejected": 0, "incomplete": 0}
    assert "40 of 60 rows repeat others" in said(data)


def test_the_greatest_trust_of_repeated_rows_counts(case):
    folder = case(15)
    manifest = folder / "pairs.csv"
    rows = [f"pics/00.jpg,a,{trust}" for trust in (0.2, 0.9, 0.4)]
    manifest.write_text("\n".join(["image,text,trust", *rows, "pics/01.jpg,b,0.5"]))
    data = read(manifest)
    assert data.facts["trust"].values.tolist() == pytest.approx([0.9, 0.5])


def test_a_folder_named_by_a_path_that_goes_up_is_read(case, monkeypatch, tmp_path):
    folder = case(5)
    (folder / "30.jpg").unlink()
    (folder / "30.txt").unlink()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    expected = {"train": 12, "validation": 4, "test": 4}
    assert sizes(read(f"../{folder.name}")) == sizes(read(folder)) == expected
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    os.rename(folder, tmp_path / "deep" / "tree")
    monkeypatch.chdir(tmp_path)
    assert sizes(read("link/../tree")) == expected


# -- splits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stray", ["top", "folder"])
def test_split_folders_hold_beside_strays(case, stray):
    folder = case(5)
    if stray == "folder":
        (folder / "extra").mkdir()
        for suffix in (".jpg", ".txt"):
            (folder / f"30{suffix}").rename(folder / "extra" / f"30{suffix}")
    data = read(folder, validation_fraction=0.1, test_fraction=0.1)
    assert sizes(data) == {"train": 13, "validation": 4, "test": 4}
    assert "1 file lies outside of the splits (train, validation, test) and is used" in said(data)


def test_all_pairs_of_splits_are_compared(case):
    folder = case(13)
    data = read(
        folder / "train.csv",
        validation=str(folder / "validation.csv"),
        test=str(folder / "test.csv"),
    )
    assert "3 of the 6 image items of the test split are also in validation rows." in said(data)
    assert "training rows" not in said(data)


def test_the_splits_of_a_saved_dataset_are_compared(tmp_path):
    datasets = pytest.importorskip("datasets")

    def part(numbers):
        return datasets.Dataset.from_dict({"molecule": [f"C{i}" for i in numbers],
                                           "text": [f"text {i}" for i in numbers]})  # fmt: skip

    parts = {"train": part(range(9)), "validation": part([9, 10, 11]), "test": part([11, 12, 1])}
    datasets.disable_progress_bars()
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    data = read(tmp_path / "saved", {"molecule": "text", "text": "text"})
    assert "1 of the 3 text items of the test split are also in validation rows." in said(data)
    assert "1 of the 3 text items of the test split are also in training rows." in said(data)


# -- silent misreading -----------------------------------------------------------------------------


def test_class_labels_of_parquet_are_names(case):
    data = read(case(6) / "train.parquet")
    assert set(texts(data)) == {"cat", "dog"}


def test_lists_that_python_and_numpy_wrote_are_several_captions(case):
    data = read(case(7) / "pairs.csv")
    assert len(data) == 12
    assert texts(data)[:2] == ["a red square, number 0", "a shape"]
    assert "'a brown tile, number 4'" not in said(data) and "as Python writes it" in said(data)


def test_words_for_nothing_are_noted_and_may_be_taken_as_missing(case):
    path = case(21) / "null_words.csv"
    data = read(path)
    assert len(data) == 8
    assert "4 rows have nothing but 'nan', 'NULL' or 'None' for text" in said(data)
    assert "--missing-values nan,NULL,None" in said(data)
    data = read(path, missing_values=("nan", "null", "none"))
    assert len(data) == 4 and data.bad_rows == 4
    assert set(reasons(data)) == {"the row has no text"}


def test_other_content_of_the_same_size_and_time_has_another_key(tmp_path):
    def write(seed):
        for i in range(4):
            noise = np.random.default_rng(seed * 9 + i).integers(0, 255, (20, 20, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / f"{i}.bmp")
            (tmp_path / f"{i}.txt").write_text(f"noise {i}")
            os.utime(tmp_path / f"{i}.bmp", (1e9, 1e9))
        return read(tmp_path).items["image"].keys.tolist()

    assert write(1) != write(2)


# -- near things -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["semicolon.csv", "tab.csv", "sep.csv", "mac.csv", "blank_headers.csv", "captions.txt"]
)
def test_tables_are_read_whatever_separates_their_cells(case, name):
    data = read(case(20) / name)
    assert len(data) == 6 and not data.rejected
    assert texts(data)[0] == "a red square, number 0"


def test_pipes_are_read_as_flickr30k_has_them(case):
    data = read(case(20) / "pipe.csv")
    assert pairs(data)[:2] == [
        ("00.jpg", "a red square, number 0 0"),
        ("00.jpg", "a red square, number 0 1"),
    ]
    assert len(data) == 6


def test_a_column_name_may_have_a_comma(case):
    path = case(21) / "comma_in_name.csv"
    assert len(read(path, columns={"text": "Findings, Impression"})) == 12


def test_the_column_that_holds_files_is_taken_instead_of_ids(case):
    data = read(case(21) / "id_and_path.csv")
    assert len(data) == 12
    assert "image is read from column 'image_path', which names files, not from 'image'" in (
        said(data)
    )


def test_ids_become_paths_by_prefix_and_suffix(case):
    folder = case(21)
    path = folder / "ids.csv"
    path.write_text("image,text\n00,a\n01,b\n")
    for key in ("*", "image"):
        data = read(path, prefix={key: "pics/"}, suffix={key: ".jpg"})
        assert pairs(data) == [("00.jpg", "a"), ("01.jpg", "b")]


@pytest.mark.parametrize("name", ["backslash.csv", "case.csv", "nfc.csv"])
def test_names_that_are_nearly_those_of_files_find_them(case, name):
    path = case(22) / name
    data = read(path)
    assert len(data) == len(path.read_text().splitlines()) - 1 and not data.rejected
    assert "by a name that is nearly theirs" in said(data)


def test_dots_in_the_names_of_shards(case):
    folder = case(23)
    data = read(folder / "input_outputs.tar")
    assert len(data) == 4 and not data.rejected
    data = read(folder / "dots.tar")
    assert len(data) == 4 and not data.rejected
    assert "have dots in them" in said(data)
    data = read(folder / "nested")
    assert len(data) == 4 and sizes(data) == {"train": 4, "validation": 0, "test": 0}


def test_layouts_of_the_hub(case):
    folder = case(24)
    data = read(folder / "per_split")
    assert sizes(data) == {"train": 5, "validation": 0, "test": 5} and not data.rejected
    data = read(folder / "classes")
    assert sorted(pairs(data)) == [
        ("00.jpg", "cat"),
        ("01.jpg", "dog"),
        ("02.jpg", "cat"),
        ("03.jpg", "dog"),
        ("04.jpg", "cat"),
        ("05.jpg", "dog"),
    ]
    assert "names of the folders (cat, dog)" in said(data)
    data = read(folder / "parquets")
    assert sizes(data) == {"train": 6, "validation": 0, "test": 0} and not data.rejected


@pytest.mark.parametrize("name", ["coco.json", "commas.jsonl", "lines.json", "list.jsonl"])
def test_forms_of_json(case, name):
    data = read(case(25) / name)
    assert pairs(data) == [
        ("00.jpg", "a red square, number 0"),
        ("01.jpg", "a green bar, number 1"),
        ("02.jpg", "a blue patch, number 2"),
        ("03.jpg", "a grey block, number 3"),
    ]
    assert not data.rejected and data.rows_read == 4


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("s3://bucket/pairs", "aws s3 sync"),
        ("hf://datasets/user/set", "hf download --repo-type dataset user/set"),
        ("https://example.org/pairs.csv", "curl -LO"),
        ("user/set", "hf download --repo-type dataset user/set"),
    ],
)
def test_addresses_are_named_as_such(name, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        read(name)
    assert hint in error.value.hint
