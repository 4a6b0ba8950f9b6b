"""Rows that are taken in blocks give the dataset that rows taken one by one give."""

import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fusemix_core.config import DataConfig
from fusemix_core.data import arrow_texts, bulk, gathered, parquet, reading, runs, sources
from fusemix_core.data.arrow_texts import Texts, plain_texts
from fusemix_core.data.delimited import DelimitedReader
from fusemix_core.data.items import first_occurrences
from fusemix_core.data.json_columns import JsonColumns
from fusemix_core.data.numbers import Growing, all_differ, compact, members
from fusemix_core.data.reading import read_pairs
from fusemix_core.data.rows import Row
from fusemix_core.data.runs import regular_lines
from fusemix_core.digests import content_key
from fusemix_core.errors import DataError

TAKES = {"query": "text", "text": "text"}


@pytest.fixture
def both_ways(monkeypatch):
    """Reads data twice, without blocks and in blocks from the first rows on; how many rows came in
    blocks."""
    taken = []

    def in_blocks(gatherer, block, columns, real=reading.add_block):
        taken.append(len(block))
        real(gatherer, block, columns)

    def read(config, takes=TAKES, **options):
        found = []
        for blocks in (False, True):
            with monkeypatch.context() as patch:
                patch.setattr(runs, "FROM", 0 if blocks else 1 << 60)
                patch.setattr(reading, "add_block", in_blocks)
                patch.setattr(sources, "_PEEK", 5)
                patch.setattr(reading, "_HEAD", 5)
                if blocks:
                    patch.setattr(runs, "FEWEST", 2)
                    patch.setattr(bulk, "_SHORT", 1)
                    patch.setattr(bulk, "_LOOKED_AT", 8)
                    patch.setattr(gathered, "HELD", 300)
                    patch.setattr(gathered, "MANY", 2)
                    patch.setattr(arrow_texts, "MANY", 2)
                else:
                    patch.setattr(parquet, "_is_plain", lambda schema: False)
                try:
                    found.append(told(read_pairs(config, takes, **options)))
                except DataError as error:
                    found.append(str(error))
        assert found[0] == found[1]
        return sum(taken)

    return read


def told(data):
    """All that a dataset says, as plain values."""
    items = {
        m: (list(map(str, i.references)), i.keys.tolist(), places(i.origin), i.modality)
        for m, i in data.items.items()
    }
    facts = {n: (f.kind, repr(f.values.tolist()), f.names) for n, f in data.facts.items()}
    splits = {name: rows.tolist() for name, rows in data.splits.items()}
    unpaired = {m: ids.tolist() for m, ids in data.unpaired.items()}
    return {
        "items": items,
        "links": data.links.tolist(),
        "splits": splits,
        "facts": facts,
        "origin": places(data.origin),
        "rejected": data.rejected,
        "rows": data.rows_read,
        "warnings": data.warnings,
        "unpaired": unpaired,
        "columns": data.columns,
        "merged": data.merged,
        "counts": data.counts,
    }


def places(origin):
    return [origin[i] for i in range(len(origin.row))]


PLAIN = [
    "a dog",
    "two cats",
    "a red house, far away",
    "naïve café",
    "e\u0301 apart",
    "3",
    "12",
    "nan",
]
ODD = [
    "",
    " ",
    "  padded ",
    "\tx",
    '"',
    'say ""hi""',
    '"a" b',
    "['a', 'b']",
    '["x", "y"]',
    "(in brackets)",
    "array(['p', 'q'])",
    "{x}",
    "\x1f",
    "\u2028",
    "\ufeffbom",
    "null",
    "-",
    "\0",
    "日本",
    "[1, 2]",
]


def cell(draw, odd):
    text = draw.choice(ODD if draw.random() < odd else PLAIN)
    return text if draw.random() < 0.3 else f"{text} {draw.randrange(40)}"


def quoted(draw, text, mark):
    """A cell as a table has it, sometimes not as it should be."""
    if draw.random() < 0.02:
        return f'"{text}'
    if draw.random() < 0.4 or ({mark, "\n", '"'} & set(text) and draw.random() < 0.9):
        return '"' + text.replace('"', '""') + '"'
    return text


def delimited(draw, odd, mark, end):
    """A table with some rows that are hard to read."""
    lines = [mark.join(["query", "text", "split", "group", "age", "trust"]).encode()]
    for _ in range(draw.randrange(60, 150)):
        cells = [
            cell(draw, odd),
            cell(draw, odd),
            draw.choice(["train", "val", "test", "Train "]),
            draw.choice(["g1", "g2", "", "g3"]),
            draw.choice(["1", "2.5", "", "x" * (odd > 0.1)]),
            draw.choice(["1", "0.5", "", "2" if draw.random() < odd else "1"]),
        ]
        line = mark.join(quoted(draw, one, mark) for one in cells).encode()
        if draw.random() < odd / 3:
            line = draw.choice(
                [
                    b"",
                    b" ",
                    b"\xff" + line,
                    line + mark.encode(),
                    line[: len(line) // 2],
                    line.replace(b"a", b"\r", 1),
                    b"x\n" + line,
                    b"\xef\xbb\xbf" + line,
                ]
            )
        lines.append(line)
    return end.join(lines) + end * (draw.random() < 0.7)


CONFIGS = [
    {},
    {"split_column": "split"},
    {"group_by": "group", "facts": {"age": "age", "kind": "group:class"}},
    {"missing_values": ("nan", "3"), "missing": "ok"},
    {"unpaired": True, "split_column": "split"},
    {"columns": {"text": "text,group"}},
    {"columns": {"text": "{text} {group}"}},
]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("odd", [0.0, 0.03, 0.3])
def test_tables(tmp_path, both_ways, suffix, odd):
    draw = random.Random(f"{suffix}{odd}")
    count = 0
    for turn in range(7):
        path = tmp_path / f"{turn}.{suffix}"
        mark = "\t" if suffix == "tsv" else draw.choice([",", ";"])
        path.write_bytes(delimited(draw, odd, mark, draw.choice([b"\n", b"\r\n"])))
        count = both_ways(DataConfig((str(path),), **CONFIGS[turn % len(CONFIGS)]))
    assert count > (100 if odd < 0.1 else 10)


@pytest.mark.parametrize("odd", [0.0, 0.03, 0.3])
def test_lines_of_json(tmp_path, both_ways, odd):
    draw = random.Random(odd)
    strange = [
        b"",
        b"[",
        b"{",
        b"3",
        b'{"query": "x"} {"query": "y"}',
        b'{"query": "x"},',
        b"\xff{}",
        b' {"query": "a", "text": "b"} ',
        b'{"query": ["a", "b"], "text": "c"}',
        b'{"query": 7, "text": "c"}',
        b'{"query": "\\ud800", "text": "c"}',
        b"{}",
        b"{" * 2000,
        b'{"query": null, "text": "x"}',
        b'{"query": "a", "query": "b", "text": "x"}',
    ]
    for turn in range(7):
        lines = []
        for _ in range(draw.randrange(60, 150)):
            row = {
                "query": cell(draw, odd),
                "text": cell(draw, odd),
                "group": draw.choice(["a", "b"]),
                "split": draw.choice(["train", "val", "test"]),
                "age": draw.choice([1, 2.5, None]),
                "trust": draw.choice([1, 0.5, None]),
            }
            if draw.random() < 0.2:
                del row[draw.choice(["group", "age", "trust"])]
            lines.append(json.dumps(row, ensure_ascii=draw.random() < 0.5).encode())
            if draw.random() < odd / 2:
                lines.append(draw.choice(strange))
        path = tmp_path / f"{turn}.jsonl"
        path.write_bytes(draw.choice([b"\n", b"\r\n"]).join(lines))
        count = both_ways(DataConfig((str(path),), **CONFIGS[turn % len(CONFIGS)]))
    assert count > 100


@pytest.mark.parametrize("odd", [0.0, 0.1])
def test_parquet(tmp_path, both_ways, odd):
    draw = random.Random(odd)
    for turn in range(7):
        n = draw.randrange(20, 90)
        columns = {
            name: [cell(draw, odd) if draw.random() > odd / 4 else None for _ in range(n)]
            for name in ("query", "text")
        }
        kinds = draw.choice(
            [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
        )
        table = pa.table({name: pa.array(c, kinds) for name, c in columns.items()})
        for name, values in (
            ("split", ["train", "val", "test"]),
            ("group", ["a", "b", None]),
            ("age", [1.5, None, 2.0]),
            ("trust", [1.0, 0.5, None]),
        ):
            table = table.append_column(name, pa.array([draw.choice(values) for _ in range(n)]))
        path = tmp_path / f"{turn}.parquet"
        pq.write_table(table, path, row_group_size=draw.randrange(5, 40))
        count = both_ways(DataConfig((str(path),), **CONFIGS[turn % len(CONFIGS)]))
    assert count > 100


def test_parquet_with_bytes_that_are_no_text(tmp_path, both_ways):
    rows = [b"fine %d" % i for i in range(40)]
    rows[17] = b"\xff\xfe"
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    text = pa.StringArray.from_buffers(40, pa.py_buffer(offsets), pa.py_buffer(b"".join(rows)))
    query = pa.array([f"q {i}" for i in range(40)])
    pq.write_table(
        pa.table({"query": query, "text": text}), tmp_path / "a.parquet", row_group_size=10
    )
    assert both_ways(DataConfig((str(tmp_path / "a.parquet"),))) > 10


def test_a_run_that_begins_late_in_its_block(tmp_path, both_ways):
    rows = ["a", "['x', 'y']", *"bcdefgh", "a"]
    lines = [
        json.dumps({"query": one, "text": f"text {i}"}) for i, one in enumerate(["z"] * 6 + rows)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert both_ways(DataConfig((str(tmp_path / "a.jsonl"),))) > 9


def test_files_and_captions(tmp_path, both_ways):
    (tmp_path / "in").mkdir()
    for i in range(6):
        (tmp_path / "in" / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n%d" % (i // 2))
    (tmp_path / "out.png").write_bytes(b"\x89PNG\r\n\x1a\nout")
    draw = random.Random(3)
    names = [
        *(f"{i}.png" for i in range(6)),
        " 1.png ",
        "gone.png",
        "../out.png",
        "",
        "http://x/y.png",
        "['0.png', '1.png']",
        "./2.png",
        "a\udcffb",
    ]
    lines = ["image,text"]
    lines += [f'"{draw.choice(names)}","a caption {draw.randrange(50)}"' for _ in range(120)]
    data = "\n".join(lines).encode("utf-8", "surrogateescape")
    (tmp_path / "in" / "a.csv").write_bytes(data)
    takes = {"image": "image", "text": "text"}
    for more in ({}, {"allow_outside": True}, {"missing": "ok"}, {"suffix": {"image": ""}}):
        both_ways(DataConfig((str(tmp_path / "in" / "a.csv"),), **more), takes)


def test_several_files_and_a_modality_that_some_lack(tmp_path, both_ways):
    for name, header in (("a", "query,text,sound"), ("b", "query,text"), ("c", "text,sound")):
        width = header.count(",") + 1
        rows = "\n".join(",".join(f"{name} {i % 9} {k}" for k in range(width)) for i in range(30))
        (tmp_path / f"{name}.csv").write_text(f"{header}\n{rows}\n")
    files = tuple(str(tmp_path / f"{name}.csv") for name in "abc")
    takes = {**TAKES, "sound": "text"}
    both_ways(DataConfig(files), takes, optional=("sound",))
    both_ways(DataConfig(files), takes, least=1)
    both_ways(DataConfig(files[:1], test=files[1]), takes)


def test_small_tables_come_row_by_row(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "add_block", None)
    rows = "\n".join(f"question {i},answer {i}" for i in range(2000))
    (tmp_path / "a.csv").write_text(f"query,text\n{rows}")
    assert len(read_pairs(DataConfig((str(tmp_path / "a.csv"),)), TAKES)) == 2000


def test_a_reader_that_only_changes_rows_gives_its_rows(tmp_path, monkeypatch):
    class Louder(DelimitedReader):
        def rows(self, path):
            for row in super().rows(path):
                yield Row(row.path, row.number, {n: v.upper() for n, v in row.values.items()})

    monkeypatch.setattr(runs, "FROM", 0)
    monkeypatch.setattr(sources, "reader_of", lambda path, config: (Louder(), []))
    rows = "\n".join(f"question {i},answer {i}" for i in range(200))
    (tmp_path / "a.csv").write_text(f"query,text\n{rows}")
    data = read_pairs(DataConfig((str(tmp_path / "a.csv"),)), TAKES)
    assert {text[0] for text in data.items["text"].references} == {"A"} and len(data) == 200


def test_where_nothing_can_be_written_texts_stay_in_memory(tmp_path, both_ways, monkeypatch):
    def full(self, parts):
        if self.size >= 0 and len(parts) == 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("fusemix_core.data.spilled.Spilled.add", full)
    rows = "\n".join(f"question {i},answer {i % 7}" for i in range(300))
    (tmp_path / "a.csv").write_text(f"query,text\n{rows}")
    assert both_ways(DataConfig((str(tmp_path / "a.csv"),))) > 200


# -- parts -----------------------------------------------------------------------------------------


def test_texts_are_a_sequence():
    texts = Texts([pa.array(["a", "b"]), pa.array([]).cast(pa.string()), pa.array(["c", "日本"])])
    assert (len(texts), texts[0], texts[-1], texts[np.int64(2)]) == (4, "a", "日本", "c")
    assert texts == ["a", "b", "c", "日本"] and texts != ["a"]
    assert texts[1:] == ["b", "c", "日本"] and texts[::-2] == ["日本", "b"]
    assert texts.take(np.array([1, 3])) == ["b", "日本"]
    with pytest.raises(IndexError):
        texts[4]


def test_plain_texts_are_known_from_their_bytes():
    values = [*PLAIN, *ODD, "x ", "arrays", "arra", "\x85x", "\xa0", "a\u0301", None]
    found, plain = plain_texts(pa.array(values, pa.string()))
    from fusemix_core.data.media.text import normalise_text

    for value, text, sure in zip(values, found.to_pylist(), plain, strict=True):
        listed = bool(value) and (value[0] in "[({" or value.startswith("array(["))
        assert sure == (bool(value and normalise_text(value)) and not listed), value
        if sure:
            assert text == normalise_text(value)


def test_keys_of_slices():
    texts = pa.array(["", "a", "bc", "日本", "x" * 300])
    for start in range(5):
        part = texts.slice(start, 3)
        keys = b"".join(content_key(t.encode()) for t in part.to_pylist())
        assert arrow_texts.keys_of(part).tobytes() == keys


def test_regular_lines_are_told_by_their_bytes():
    lines = [
        b"a,b",
        b'"a,x",b',
        b'a,"b"',
        b'"a""c",b',
        b"",
        b'"",""',
        b"\r",
        "é,b".encode(),
        b"a,b\r",
    ]
    odd = [
        b"a",
        b"a,b,c",
        b'a"b,c',
        b'"a"b,c',
        b'"a,b',
        b'a,b"',
        b"a\rb,c",
        b"a,\0",
        b"\xff,b",
        b" ",
        b'a,"b" ',
        b'a, "b"',
        b"\xef\xbb\xbfa,b",
        b'""a,b',
        b'a,"""',
    ]
    for bad in [None, *odd]:
        some = [*lines, *([bad] if bad is not None else []), *lines]
        data = b"\n".join(some) + b"\n"
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 10)
        found = regular_lines(data, ends, ord(","), 2)
        assert found.tolist() == [line != bad for line in some], bad


def test_numbers_without_sorting_agree_with_numpy():
    draw = np.random.default_rng(0)
    for n in (0, 1, 40):
        for highest in (1, 30, 10**12):
            values = draw.integers(0, highest, n)
            inverse, count = compact(values)
            distinct, expected = np.unique(values, return_inverse=True)
            assert inverse.tolist() == expected.tolist() and count == len(distinct)
        some = draw.integers(-1, 30, n)
        assert members(some, 30).tolist() == [i in some for i in range(30)]
        assert all_differ(some, 30) == (len(set(some.tolist())) == n and -1 not in some)


@pytest.mark.parametrize("twice", ["many", "few", "part of a key", "none"])
def test_first_occurrences_of_keys_with_halves_in_common(twice):
    draw = np.random.default_rng(0)
    keys = draw.integers(0, 2**63, (200, 2)).astype(np.uint64)
    if twice == "many":
        keys = draw.integers(0, 4, (200, 2)).astype(np.uint64)
    elif twice == "few":
        keys[[7, 150, 199]] = keys[[120, 3, 120]]
    elif twice == "part of a key":
        keys[[7, 150], 0], keys[9, 0] = keys[[120, 3], 0], keys[8, 0] + np.uint64(1)
    first, inverse = first_occurrences(keys)
    seen: dict[tuple, int] = {}
    for i, key in enumerate(map(tuple, keys.tolist())):
        seen.setdefault(key, i)
    assert first.tolist() == list(seen.values())
    assert [first[i] for i in inverse] == [seen[tuple(k)] for k in keys.tolist()]


def test_numbers_grow_one_by_one_and_many_at_a_time():
    some, expected = Growing("q"), []
    assert some.values().tolist() == [] and some.values().dtype == np.int64
    for i in range(7):
        some.append(i)
        some.extend([i, i])
        some.add(np.arange(i, dtype=np.int8).reshape(1, -1))
        expected += [i, i, i, *range(i)]
        assert len(some) == len(expected)
        if i % 2:
            assert some.values().tolist() == expected


LINES = [
    '{"a": "x", "b": "y"}',
    '{"a": "x y", "b": "é"}',
    '{"a": "", "b": "}{,:"}',
    '{"a": "x", "b":  "y"}',
    '{"b": "y", "a": "x"}',
    '{"a": "x"}',
    '{"a": null, "b": "y"}',
    '{"a": "a\\n\\"q\\" \\u00e9 \\ud83d\\ude00", "b": "y"}',
]
STRANGE = [
    '{"a": "\\ud800", "b": "y"}',
    '{"a": "\\udc00", "b": "y"}',
    '{"a": "x", "b": "y"} {"a": "x"}',
    '{"a": "x", "b": "y", "c": [1]}',
    '{"a": "x", "b": "y", "a": "z"}',
    '{"a": 1, "b": "y"}',
    '{"a": "\t", "b": "y"}',
    '{"a": "x\0", "b": "y"}',
    '{"a": "x", "b": "y"',
    '{"a": "x", "b": "y",}',
    '["a", "b"]',
    "",
    '{"a": "2020-01-01", "b": true}',
    '{"a": NaN, "b": "y"}',
    '{"a", "x": "b", "y"}',
]


def test_json_in_columns_is_what_python_reads():
    draw = random.Random(1)
    count = 0
    for turn in range(600):
        some = draw.choices(LINES[: draw.choice([3, 8])], k=draw.randrange(1, 9))
        if turn % 2:
            some.insert(draw.randrange(len(some) + 1), draw.choice(STRANGE))
        columns = JsonColumns()
        columns.learn([{"a": "x", "b": "y"}])
        found = columns.read(draw.choice(["\n", "\r\n"]).join(some).encode())
        if found:
            rows = [json.loads(line) for line in some if line]
            assert len(found["a"]) == len(rows)
            for name, column in found.items():
                assert column.to_pylist() == [row.get(name) for row in rows]
        count += bool(found)
    assert 300 <= count < 400


def test_json_in_columns_keeps_the_kinds_of_numbers():
    columns = JsonColumns()
    columns.learn(
        [{"n": 1, "x": 0.5, "t": "a", "y": None}, {"n": None, "x": 2, "t": "b", "y": True}]
    )
    line = b'{"n": %b, "x": %b, "t": "c", "y": %b}\n'
    same = columns.read(line % (b"7", b"0.25", b"false") + line % (b"-3", b"null", b"null"))
    assert {name: one.to_pylist() for name, one in same.items()} == {
        "n": [7, -3], "x": [0.25, None], "t": ["c", "c"], "y": [False, None],
    }  # fmt: skip
    for odd in ((b"7.0", b"0.5", b"true"), (b"7", b"1", b"true"), (b"7", b"0.5", b"1")):
        assert not columns.read(line % odd), odd


def test_json_that_arrow_can_not_read_is_left_to_python_for_good():
    columns = JsonColumns()
    columns.learn([{"a": "x"}])
    for _ in range(8):
        assert not columns.read(b'{"a": 1}\n')
    assert not columns.read(b'{"a": "x"}\n')
