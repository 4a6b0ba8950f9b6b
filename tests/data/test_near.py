"""Names that are nearly those of files, and columns that hold files."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.folders import pairs, put, read, reasons, said

from fusemix_core.data.near import NearFiles
from fusemix_core.errors import DataError


def manifest(folder, *rows, header="image,text"):
    path = folder / "a.csv"
    path.write_text("\n".join([header, *rows]))
    return path


def test_folders_may_be_nearly_named_too(tmp_path):
    put(tmp_path, "Pics/00.jpg", "Pics/Ü/01.JPEG", "Pics/a b.jpg")
    rows = ["pics\\00.jpg,a", "PICS/u\u0308/01.jpeg,b", "Pics/a%20b.jpg,c"]
    data = read(manifest(tmp_path, *rows))
    assert pairs(data) == [("00.jpg", "a"), ("01.JPEG", "b"), ("a b.jpg", "c")]
    assert "3 files of image are found by a name that is nearly theirs" in said(data)


def test_of_two_near_files_none_is_taken(tmp_path):
    put(tmp_path, "a.jpg", "A.jpg", "0.jpg")
    data = read(manifest(tmp_path, "A.JPG,x", "0.jpg,y"), max_bad=1.0)
    assert pairs(data) == [("0.jpg", "y")]
    assert (
        "did you mean A.jpg or a.jpg?" in reasons(data)[0] or "a.jpg or A.jpg" in (reasons(data)[0])
    )


def test_near_files_outside_are_not_taken(tmp_path):
    folder = put(tmp_path / "data", "0.jpg")
    put(tmp_path, "secret.jpg")
    (folder / "link.jpg").symlink_to("../secret.jpg")
    rows = ["0.jpg,a", "LINK.jpg,b", "..\\secret.jpg,c", "x\\..\\..\\secret.jpg,d"]
    data = read(manifest(folder, *rows), max_bad=1.0)
    assert pairs(data) == [("0.jpg", "a")] and len(data.rejected) == 3
    assert len(read(manifest(folder, *rows), allow_outside=True, max_bad=1.0)) == 2
    near = NearFiles([str(folder)], allow_outside=False)
    assert near.find(str(folder / "..\\secret.jpg")) is None
    assert near.find("/elsewhere/0.JPG") is None


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("C:\\Users\\me\\pics\\00.jpg", "did you mean pics/00.jpg?"),
        ("/home/me/set/pics/00.jpg", "did you mean pics/00.jpg?"),
        ("pics/00.png", "did you mean 00.jpg?"),
        ("pics/00", "did you mean 00.jpg?"),
        ("s3://bucket/00.jpg", "is a URL"),
    ],
)
def test_what_is_near_is_said(tmp_path, name, hint):
    put(tmp_path, "pics/00.jpg", "pics/01.jpg")
    data = read(manifest(tmp_path, f"{name},a", "pics/01.jpg,b"), max_bad=1.0)
    assert pairs(data) == [("01.jpg", "b")] and hint in reasons(data)[0]


def test_a_file_address_is_a_path(tmp_path):
    put(tmp_path, "a b.jpg")
    assert len(read(manifest(tmp_path, f"file://{tmp_path}/a%20b.jpg,x"))) == 1


def test_a_folder_that_holds_all_missing_files_is_meant_if_there_is_one(tmp_path):
    put(tmp_path, "sub/images/0.jpg", "sub/images/1.jpg")
    path = manifest(tmp_path, "0.jpg,a", "1.jpg,b", "2.jpg,c")
    with pytest.raises(DataError, match="No row"):
        read(path)
    put(tmp_path, "sub/images/2.jpg")
    data = read(path)
    assert len(data) == 3 and "read from the folder" in said(data)
    put(tmp_path, "other/0.jpg", "other/1.jpg", "other/2.jpg")
    with pytest.raises(DataError, match="No row"):
        read(path)


def test_a_column_of_files_is_found_under_any_name(tmp_path):
    put(tmp_path, "0.jpg", "1.jpg")
    data = read(manifest(tmp_path, "1,0.jpg,a", "2,1.jpg,b", header="n,photo_loc,text"))
    assert len(data) == 2 and "image is read from column 'photo_loc', which names files." in (
        said(data)
    )


def test_names_of_files_are_not_left_for_another_column(tmp_path):
    """A column of near names, or of missing files, stays the one that is read."""
    put(tmp_path, "0.jpg", "thumbs/0.jpg", "1.jpg", "thumbs/1.jpg")
    rows = ["0.JPG,thumbs/0.jpg,a", "1.JPG,thumbs/1.jpg,b"]
    data = read(manifest(tmp_path, *rows, header="image,thumb,text"))
    assert pairs(data) == [("0.jpg", "a"), ("1.jpg", "b")]


def test_two_columns_of_files_are_left_to_the_user(tmp_path):
    put(tmp_path, "0.jpg", "1.jpg")
    path = manifest(tmp_path, "7,0.jpg,1.jpg,a", header="image,left,right,text")
    with pytest.raises(DataError, match="does not exist"):
        read(path)
    assert len(read(path, columns={"image": "left"})) == 1


def test_ids_that_are_numbers_become_paths(tmp_path):
    put(tmp_path / "pics", "0.jpg", "1.jpg")
    rows = pa.table({"id": [0, 1], "text": ["a", "b"]})
    pq.write_table(rows, tmp_path / "a.parquet")
    affixes = {"prefix": {"image": "pics/"}, "suffix": {"image": ".jpg"}}
    data = read(tmp_path / "a.parquet", columns={"image": "id"}, **affixes)
    assert pairs(data) == [("0.jpg", "a"), ("1.jpg", "b")]


def test_several_columns_may_be_named_though_names_have_commas(tmp_path):
    put(tmp_path, "0.jpg")
    path = manifest(tmp_path, "0.jpg,a,b,c", header='image,"x, y",x,y')
    for given, expected in [("x, y", ["a"]), ("x,y", ["b", "c"]), ("x,x, y", ["b", "a"])]:
        data = read(path, columns={"text": given})
        assert [text for _, text in pairs(data)] == expected
