"""Tables in text files: quotes, delimiters, headers, encodings."""

import gzip

import pytest
from data.folders import pairs, put, read, reasons, said, texts

from fusemix_core.data.dialect import find_mark
from fusemix_core.errors import ConfigError, DataError


@pytest.fixture
def photos(tmp_path):
    return put(tmp_path, *(f"{i}.jpg" for i in range(6)))


def table(folder, content, name="a.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# -- quotes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('text,image\n"Stop,0.jpg\ndog,1.jpg\n12",2.jpg\nx,3.jpg\n', ["dog", '12"', "x"]),
        ('image;text\n0.jpg;"Stop\n1.jpg;dog\n2.jpg;12"\n3.jpg;x\n', ["dog", '12"', "x"]),
        ('n,image,text\n1,0.jpg,"Stop\n2,1.jpg,dog\n3,2.jpg,x\n', ["dog", "x"]),
        ('image,text,n\n0.jpg,"Stop,1\n1.jpg,b,2\n2.jpg,c"",3\n3.jpg,d",4\n', ["b", 'c""', 'd"']),
    ],
)
def test_a_quote_that_would_swallow_rows_costs_its_own(photos, content, expected):
    data = read(table(photos, content))
    assert texts(data) == expected
    assert [one.row for one in data.rejected] == [1]


def test_rows_without_file_names_are_not_swallowed_either(tmp_path):
    path = table(tmp_path, 'molecule,text\nCCO,"open\nCCN,b\nCCC,c"\nCCCC,d\n')
    data = read(path, {"molecule": "text", "text": "text"})
    assert texts(data) == ["b", 'c"', "d"] and len(data.rejected) == 1


def test_captions_of_several_lines_are_one_cell(photos):
    report = "FINDINGS: heart, normal\nLungs, clear\nEffusion, none"
    for mark in ",;\t":
        data = read(table(photos, f'image{mark}text\n0.jpg{mark}"{report}"\n1.jpg{mark}b\n'))
        assert texts(data) == [report, "b"] and not data.rejected


def test_a_tab_file_may_mix_quotes_that_are_text_with_quoted_cells(photos):
    rows = ['0.jpg\t"a', "1.jpg\tb", '2.jpg\tc"', '3.jpg\t"say ""x"""', '4.jpg\t"two\nlines"']
    data = read(table(photos, "\n".join(["image\ttext", *rows]), "a.tsv"))
    assert texts(data) == ['"a', "b", 'c"', 'say "x"', "two\nlines"]


# -- what separates cells --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "image^text\n0.jpg^a, b\n1.jpg^c\n", ["a, b", "c"]),
        ("a.csv", 'image, text\n0.jpg, a\n1.jpg, "b, c"\n', ["a", "b, c"]),
        ("a.csv", "image;x;text\n0.jpg;1,5;a\n1.jpg;2,5;b, c\n", ["a", "b, c"]),
        ("a.csv", ",image,text\n0,0.jpg,a\n1,1.jpg,b\n", ["a", "b"]),
        ("a.csv", "image,id,id,text\n0.jpg,1,1,a\n1.jpg,2,3,b\n", ["a", "b"]),
        ("a.csv", "\ufeffsep=\t\r\nimage\ttext\r\n0.jpg\ta\r\n", ["a"]),
        ("a.csv", "image,text\n0.jpg,a\r1.jpg,b\r\n2.jpg,c\n", ["a", "b", "c"]),
        ("a.csv", "image\ttitle; short\ttext\n0.jpg\tx\ta; b\n1.jpg\ty\tc\n", ["a; b", "c"]),
        ("a.tsv", "image,text\n0.jpg,a\n1.jpg,b\n", ["a", "b"]),
        ("a.txt", 'image|text\n0.jpg|a "b\n1.jpg|c\n', ['a "b', "c"]),
        ("a.csv", 'Image Path,Text\n0.jpg,"a \\"b\\", c"\n1.jpg,"d"\n', ['a "b", c', "d"]),
        ("a.psv", "image|text\n0.jpg|a, b\n", ["a, b"]),
        ("a.token", "0.jpg#0\tA dog .\n0.jpg#1\tx\n1.jpg#0\ty\n", ["A dog .", "x", "y"]),
    ],
)
def test_tables_as_programs_write_them(photos, name, content, expected):
    data = read(table(photos, content, name))
    assert texts(data) == expected and not data.rejected


def test_a_line_of_a_token_file_that_names_no_image_is_rejected(photos):
    data = read(table(photos, "0.jpg#0\ta\n1.jpg#0\tb\nbroken\n", "a.token"))
    assert len(data) == 2 and "NAME#NUMBER" in reasons(data)[0]


def test_the_mark_that_gives_equal_cells_wins_then_the_one_that_gives_more():
    assert find_mark(["a;b,c", "1;2", "3;4"], ".csv") == ";"
    assert find_mark(["a,b\tc,d\te", "1\t2\t3"], ".csv") == "\t"
    assert find_mark(["a,b", "1,2,3", "1"], ".csv") == ","
    assert find_mark(["a"], ".tsv") == "\t" and find_mark([], ".csv") == ","


def test_the_user_names_the_delimiter(photos):
    path = table(photos, "image:text\n0.jpg:a\n")
    with pytest.raises(DataError) as error:
        read(path)
    assert "--delimiter" in error.value.hint
    assert texts(read(path, delimiter=":")) == ["a"]
    assert texts(read(table(photos, "image\ttext\n0.jpg\ta,b\n"), delimiter="tab")) == ["a,b"]
    with pytest.raises(ConfigError, match="not one character"):
        read(path, delimiter="||")


def test_two_columns_of_one_name_are_a_fault_only_if_used(photos):
    path = table(photos, "image,text,text\n0.jpg,a,a\n1.jpg,a,b\n")
    data = read(path)
    assert texts(data) == ["a"] and "'text' twice" in reasons(data)[0]


def test_a_first_line_that_names_a_file_is_not_a_header(photos):
    with pytest.raises(DataError, match="not a header"):
        read(table(photos, "0.jpg,a\n1.jpg,b\n"))


# -- encodings and foreign files -------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252", "latin-1", "utf-8-sig"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_the_user_names_the_encoding(photos, encoding, name):
    lines = {
        "a.csv": "image,text\n0.jpg,café\n1.jpg,b\n",
        "a.jsonl": '{"image": "0.jpg", "text": "café"}\n{"image": "1.jpg", "text": "b"}\n',
    }
    data = read(table(photos, lines[name].encode(encoding), name), encoding=encoding)
    assert texts(data) == ["café", "b"]


def test_bytes_that_are_not_of_the_encoding_cost_their_row(photos):
    content = b"image,text\n0.jpg,a\n1.jpg,\x81\xff\n2.jpg,c\n"
    data = read(table(photos, content), encoding="shift_jis")
    assert texts(data) == ["a", "c"] and reasons(data) == ["the row is not shift_jis"]
    with pytest.raises(ConfigError, match="no encoding named 'foo'"):
        read(table(photos, content), encoding="foo")


def test_gzip(photos):
    content = gzip.compress(b"image,text\n0.jpg,a\n")
    assert texts(read(table(photos, content, "a.csv.gz"))) == ["a"]
    with pytest.raises(DataError, match="not whole|can't be read"):
        read(table(photos, content[:-12], "b.csv.gz"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html>\n<html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer"),
        (b"PK\x03\x04rest", "a zip archive"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet", "a.tar", "a.xlsx"])
def test_files_that_are_something_else_are_named(tmp_path, content, message, name):
    with pytest.raises(DataError, match=message):
        read(table(tmp_path, content * 9, name))


# -- cells -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("['a', 'b']", ["a", "b"]),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ('["it\'s", "b"]', ["it's", "b"]),
        ("[\"it's\" 'b']", ["it's", "b"]),
        ("('a', 'b')", ["a", "b"]),
        ("array(['a', 'b'], dtype=object)", ["a", "b"]),
        ("['a', nan, None]", ["a"]),
        ('["a", null]', ["a"]),
        ("['a']", ["a"]),
        (r"['a\'b', 'tab\tc', '\d']", ["a'b", "tab\tc", r"\d"]),
        ("[not a list]", ["[not a list]"]),
        ("('a')", ["('a')"]),
        ("['unclosed]", ["['unclosed]"]),
        ("[1, 2]", ["[1, 2]"]),
        ("{'a': 1}", ["{'a': 1}"]),
    ],
)
def test_lists_in_cells(photos, cell, expected):
    quoted = '"' + cell.replace('"', '""') + '"'
    assert texts(read(table(photos, f"image,text\n0.jpg,{quoted}\n"))) == expected


def test_texts_that_stand_for_something_else_are_noted(photos):
    data = read(table(photos, "image,text\n0.jpg,0\n1.jpg,1\n2.jpg,1\n"))
    assert "2 of 2 different texts are whole numbers, such as '0'" in said(data)
    data = read(table(photos, "image,text\n0.jpg,[x]\n1.jpg,y\n"))
    assert "1 row has a text in brackets, such as [x]" in said(data)
    assert not read(table(photos, "image,text\n0.jpg,10\n1.jpg,ten\n")).warnings


def test_words_for_missing_count_in_files_groups_and_trust_too(photos):
    content = "image,text,trust,g\nnan,a,1,x\n0.jpg,b,NaN,nan\n1.jpg,nan,1,x\n2.jpg,d,0.5,nan\n"
    data = read(table(photos, content), missing_values=("nan",), group_by="g", max_bad=1.0)
    assert pairs(data) == [("0.jpg", "b"), ("2.jpg", "d")]
    assert reasons(data) == ["the row has no image", "the row has no text"]
    assert data.facts["trust"].values.tolist() == [1.0, 0.5]
