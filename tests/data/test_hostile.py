"""What readers once did with hostile or damaged files: each was found by `tests/fuzz`."""

import io
import json
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz.readers import add, furnish, picture

from fusemix_core.config import DataConfig
from fusemix_core.data import read_pairs
from fusemix_core.data.sources import expand
from fusemix_core.errors import DataError, short

TAKES = {"image": "image", "text": "text"}


def read(source, **options):
    options = {"validation_fraction": 0.0, "test_fraction": 0.0, **options}
    return read_pairs(DataConfig(source=(str(source),), **options), TAKES)


def texts(data):
    return [data.items["text"].describe(i) for i in data.links[:, 1]]


def reasons(data):
    return {r.row: r.reason for r in data.rejected}


@pytest.fixture
def photos(tmp_path):
    """`0.png` to `5.png` in a folder."""
    (tmp_path / "data").mkdir()
    return furnish(tmp_path / "data")


# -- links and special files -----------------------------------------------------------------------


def test_links_that_lead_out_of_the_folder_are_refused(photos, tmp_path):
    (tmp_path / "secret.png").write_bytes(picture(9))
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "far").mkdir()
    furnish(tmp_path / "far")
    (photos / "link.png").symlink_to("../secret.png")
    (photos / "within.png").symlink_to("0.png")
    (photos / "sub").symlink_to("../far")
    (photos / "a.csv").write_text(
        "image,text\n1.png,a\nlink.png,b\nsub/2.png,c\nwithin.png,d\nsub/../3.png,e\n"
    )
    data = read(photos / "a.csv")
    assert texts(data) == ["a", "d", "e"]
    assert all("link" in reasons(data)[row] for row in (2, 3))
    assert texts(read(photos / "a.csv", allow_outside=True)) == ["a", "b", "c", "d", "e"]
    (photos / "a.csv").unlink()
    (photos / "0.txt").write_text("good")
    (photos / "1.txt").symlink_to("../secret.txt")
    assert texts(read(photos)) == ["good"]
    assert set(texts(read(photos, allow_outside=True))) == {"good", "secret"}


def test_a_folder_of_data_may_itself_be_a_link(photos, tmp_path):
    (photos / "a.csv").write_text("image,text\n1.png,a\n")
    (tmp_path / "short").symlink_to(photos)
    assert texts(read(tmp_path / "short" / "a.csv")) == ["a"]


def test_pipes_and_folders_in_place_of_files_hang_nothing(photos):
    os.mkfifo(photos / "pipe.png")
    os.mkfifo(photos / "1.txt")
    (photos / "2.txt").mkdir()
    (photos / "0.txt").write_text("good")
    (photos / "pipe.txt").write_text("a pipe")
    (photos / "3.png").unlink()
    (photos / "3.png").mkdir()
    data = read(photos)
    assert texts(data) == ["good"]
    assert sum("is not a file" in r.reason for r in data.rejected) == 2
    (photos / "a.tar").symlink_to("pipe.png")
    for source in (photos, photos / "a.tar"):
        with pytest.raises(DataError):
            read(source)


# -- names -----------------------------------------------------------------------------------------


def test_names_of_any_length_cost_one_row(photos):
    long = "x" * 300
    rows = [f"{long}.png,a", f"{'y/' * 4000}.png,b", "0.png,c"]
    (photos / "a.csv").write_text("\n".join(["image,text", *rows]))
    data = read(photos / "a.csv")
    assert texts(data) == ["c"] and set(reasons(data)) == {1, 2}
    assert all(len(r.reason) < 700 for r in data.rejected)
    images = [{"filename": n, "sentences": [{"raw": "t"}]} for n in (f"{long}.png", "1.png")]
    (photos / "k.json").write_text(json.dumps({"images": images}))
    assert texts(read(photos / "k.json")) == ["t"]


@pytest.mark.parametrize(
    "name",
    [
        "{0..99999}{0..99999}.csv",
        "{a,b}" * 40,
        "{0..%s}" % ("9" * 5000),
        "\0*",
        "x" * 5000,
        "[" * 200_000,
    ],
)
def test_names_of_sources_that_mean_too_much_or_nothing(photos, name):
    with pytest.raises(DataError) as error:
        expand(f"{photos}/{name}")
    assert len(str(error.value)) < 12_000


def test_long_quotes_are_cut_in_messages():
    assert short("abc") == "abc" and len(short("a" * 1000)) == 121


# -- archives --------------------------------------------------------------------------------------


def archive_of(count, format=tarfile.GNU_FORMAT):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as archive:
        for i in range(count):
            add(archive, f"{i}.png", picture(i))
            add(archive, f"{i}.txt", f"text {i}".encode())
    return bytearray(sink.getvalue())


@pytest.mark.parametrize("damage", [b"\xff" * 512, b"\0" * 512, b"\0"])
@pytest.mark.parametrize("row", [0, 2])
def test_what_follows_a_damaged_header_is_read(tmp_path, damage, row):
    data = archive_of(5)
    start = data.index(f"{row}.png".encode())
    data[start : start + len(damage)] = damage
    (tmp_path / "a.tar").write_bytes(data)
    found = read(tmp_path / "a.tar")
    assert texts(found) == [f"text {i}" for i in range(5) if i != row]
    assert any(f"byte {start:,}" in r.reason for r in found.rejected)
    assert found.rows_read == 6  # the archive's own fault is one


def test_a_header_that_leads_backwards_ends_nothing(tmp_path):
    """A negative size had tarfile read the same member for ever."""
    data = archive_of(3)
    start = data.index(b"1.png")
    header = data[start : start + 512]
    header[124:136] = b"\xff" * 10 + b"\xf6\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[start : start + 512] = header
    (tmp_path / "a.tar").write_bytes(data)
    assert texts(read(tmp_path / "a.tar")) == ["text 0", "text 2"]


@pytest.mark.slow
def test_a_name_that_fills_a_gigabyte_is_not_read(tmp_path):
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    path = tmp_path / "a.tar"
    with open(path, "wb") as file:
        file.write(bytes(archive_of(2)[: -10 * 512]).rstrip(b"\0"))
        file.seek(-(-file.tell() // 512) * 512)
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.truncate(file.tell() + (1 << 30))
    data = read(path)
    assert texts(data) == ["text 0", "text 1"]
    assert "header is too large" in data.rejected[-1].reason


# -- Parquet ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["garbage", "no page of data"])
def test_a_damaged_row_group_costs_its_rows(photos, how):
    table = pa.table({"image": [f"{i}.png" for i in range(6)], "text": [f"t{i}" for i in range(6)]})
    path = photos / "a.parquet"
    pq.write_table(table, path, row_group_size=2, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    if how == "garbage":
        start = data.index(b"2.png")
        data[start - 14 : start] = b"\xff" * 14
    else:  # the type of the page, an enum
        data[pq.read_metadata(path).row_group(1).column(0).data_page_offset + 1] = 9
    path.write_bytes(data)
    found = read(path)
    assert texts(found) == ["t0", "t1", "t4", "t5"]
    assert found.rows_read == 6 and set(reasons(found)) == {3, 4}
    assert [found.origin[i][1] for i in range(4)] == [1, 2, 5, 6]


def test_a_value_that_python_cannot_hold_costs_no_row(photos):
    when = pa.array([0, 1 << 50], pa.timestamp("s"))
    path = photos / "a.parquet"
    pq.write_table(pa.table({"image": ["0.png", "1.png"], "text": ["a", "b"], "t": when}), path)
    assert texts(read(path)) == ["a", "b"]
