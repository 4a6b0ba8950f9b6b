"""The flat index against plain loops, and as files that may be damaged."""

import subprocess
import sys

import numpy as np
import pytest
from search.vectors import keys_of, naive, queries_of, rows_of

from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.search import scan
from fusemix_core.search.flat import FlatIndex
from fusemix_core.search.lookup import Lookup

COUNT = 500


@pytest.fixture
def folder(tmp_path):
    index = FlatIndex(tmp_path / "i", 24, 2, segment=128)
    index.add(keys_of(range(COUNT)), rows_of(COUNT))
    return tmp_path / "i"


def opened(folder):
    return FlatIndex(folder, 24, 2, segment=128)


def numbers(keys: np.ndarray) -> list[list[int]]:
    """The numbers that keys were made from, `[m, k]`."""
    return (keys[..., 0] >> np.uint64(40)).astype(int).tolist()


@pytest.mark.parametrize("multiplies", [True, False])
@pytest.mark.parametrize("count", [1, 10, COUNT, 2 * COUNT])
def test_it_finds_what_plain_products_rank_first(folder, monkeypatch, multiplies, count):
    """Through products of bytes by torch, and by numpy without torch."""
    if not multiplies:
        monkeypatch.setattr(scan, "_multiplies_bytes", lambda torch: False)
    queries = queries_of(19)
    keys, scores = opened(folder).search(queries, count)
    assert numbers(keys) == naive(rows_of(COUNT), queries, count)
    expected = np.take_along_axis(queries @ rows_of(COUNT).T, np.array(numbers(keys)), axis=1)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_vectors_that_differ_less_than_a_rounding_are_ranked_exactly(tmp_path):
    """A thousand rows within the step of a byte: the scan can't tell them, the exact rows can."""
    draw = np.random.default_rng(0)
    row = draw.standard_normal(24) / 5
    rows = (row + 1e-5 * draw.standard_normal((1000, 24))).astype(np.float32)
    index = FlatIndex(tmp_path / "i", 24, 0)
    index.add(keys_of(range(1000)), rows)
    found, _ = index.search(row[None].astype(np.float32), 5)
    assert np.all(np.diff(rows[numbers(found)[0]] @ row) <= 1e-7)
    assert rows[numbers(found)[0][0]] @ row >= (rows @ row).max() - 1e-7


def test_rows_of_any_length_are_ranked_exactly(tmp_path):
    rows = rows_of(300, kept=0) * np.geomspace(1e-4, 1e4, 300)[:, None].astype(np.float32)
    rows[7] = 0
    index = FlatIndex(tmp_path / "i", 24, 0)
    index.add(keys_of(range(300)), rows)
    queries = queries_of(6, kept=0)
    assert numbers(index.search(queries, 12)[0]) == naive(rows, queries, 12)


def test_only_what_is_allowed_is_found(folder):
    allowed = np.arange(COUNT) % 3 == 0
    queries = queries_of(5)
    found, _ = opened(folder).search(queries, 10, allowed)
    assert numbers(found) == naive(rows_of(COUNT), queries, 10, allowed)
    assert opened(folder).search(queries, 10, np.zeros(COUNT, bool))[0].shape == (5, 0, 2)


def test_what_is_removed_is_not_found_and_may_come_back(folder):
    index, queries = opened(folder), queries_of(5)
    gone = np.arange(0, COUNT, 4)
    assert index.remove(keys_of([*gone, 9999])) == len(gone)
    left = ~np.isin(np.arange(COUNT), gone)
    expected = naive(rows_of(COUNT), queries, 10, left)
    assert numbers(index.search(queries, 10)[0]) == expected
    assert numbers(opened(folder).search(queries, 10)[0]) == expected
    assert len(index) == left.sum()
    half = np.arange(len(index)) % 2 == 0
    asked = np.array(numbers(index.keys))[half]
    assert numbers(index.search(queries, 10, half)[0]) == naive(
        rows_of(COUNT), queries, 10, np.isin(np.arange(COUNT), asked)
    )
    index.add(keys_of(gone), rows_of(COUNT)[gone])
    assert numbers(index.search(queries, 10)[0]) == naive(rows_of(COUNT), queries, 10)


def test_vectors_come_back_as_they_were_given(folder):
    index = opened(folder)
    index.remove(keys_of([0, 1, 130]))
    asked = [499, 2, 250, 2]
    np.testing.assert_array_equal(index.rows(keys_of(asked)), rows_of(COUNT)[asked])
    with pytest.raises(KeyError):
        index.rows(keys_of([2, 130]))


def test_what_is_there_is_not_added_again(folder):
    index = opened(folder)
    before = sorted(path.name for path in folder.glob("*.vectors"))
    index.add(keys_of(range(COUNT)), rows_of(COUNT, seed=5))
    assert sorted(path.name for path in folder.glob("*.vectors")) == before
    np.testing.assert_array_equal(index.rows(keys_of([3])), rows_of(COUNT)[[3]])


def test_compacting_changes_no_answer_and_leaves_few_files(folder):
    index, queries = opened(folder), queries_of(5)
    index.remove(keys_of(range(100, 260)))
    expected = index.search(queries, 10)
    index.compact()
    assert len(list(folder.glob("*.vectors"))) == 3 and not list(folder.glob("*.gone"))
    found = opened(folder).search(queries, 10)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_many_small_additions_and_removals_leave_few_files(tmp_path):
    index = FlatIndex(tmp_path / "i", 24, 2, segment=128)
    for i in range(60):
        index.add(keys_of([i]), rows_of(COUNT)[[i]])
    assert len(list((tmp_path / "i").glob("*.vectors"))) <= 18
    for i in range(40):
        index.remove(keys_of([i]))
    assert len(list((tmp_path / "i").iterdir())) <= 40
    assert numbers(index.keys) == list(range(40, 60))


def test_an_open_index_answers_as_before_until_it_is_refreshed(folder):
    reader, writer, queries = opened(folder), opened(folder), queries_of(3)
    before = reader.search(queries, 5)
    writer.remove(before[0].reshape(-1, 2))
    writer.compact()
    np.testing.assert_array_equal(reader.search(queries, 5)[0], before[0])
    reader.refresh()
    assert not np.isin(numbers(reader.search(queries, 5)[0]), numbers(before[0])).any()


def test_an_index_of_nothing_finds_nothing(tmp_path):
    index = FlatIndex(tmp_path / "i", 24, 2)
    assert len(index) == 0 and index.check() == []
    assert index.search(queries_of(2), 5)[0].shape == (2, 0, 2)
    assert index.remove(keys_of([1])) == 0


def test_every_flipped_byte_is_found_and_mended(folder):
    """In segments, in what is removed and in the manifest; only the damaged part is lost."""
    opened(folder).remove(keys_of([3, 4]))
    paths = [p for p in sorted(folder.iterdir()) if p.suffix in (".vectors", ".gone", ".json")]
    assert {p.suffix for p in paths} == {".vectors", ".gone", ".json"}
    draw = np.random.default_rng(0)
    for path in paths:
        whole = {p: p.read_bytes() for p in paths}
        content = whole[path]
        for at in [0, 9, len(content) - 1, *draw.integers(0, len(content), 5)]:
            broken = bytearray(content)
            broken[at] ^= 1 << int(draw.integers(0, 8))
            path.write_bytes(broken)
            assert any(str(path) in fault for fault in opened(folder).check()), (path, at)
            with pytest.raises(ArtefactError, match="index update"):
                opened(folder).search(queries_of(1), 5)
        mended = opened(folder)
        assert mended.repair() and not mended.check()
        lost = set(range(COUNT)) - {3, 4} - set(numbers(mended.keys))
        assert len(lost) in ((COUNT - 2,) if path.suffix == ".json" else (128, 126, 116))
        mended.add(keys_of(range(COUNT)), rows_of(COUNT))
        assert len(opened(folder)) == COUNT and not opened(folder).check()
        for p in folder.iterdir():
            p.unlink()
        for p, data in whole.items():
            p.write_bytes(data)


def test_a_missing_segment_is_reported_and_mended(folder):
    next(folder.glob("*.vectors")).unlink()
    assert "is missing" in opened(folder).check()[0]
    with pytest.raises(ArtefactError, match="index update"):
        opened(folder).search(queries_of(1), 5)
    index = opened(folder)
    index.repair()
    assert 0 < len(index) < COUNT and len(index.search(queries_of(1), 5)[0][0]) == 5


def test_an_index_of_another_width_is_refused(folder):
    with pytest.raises(ArtefactError, match="another index"):
        FlatIndex(folder, 23, 2).search(np.zeros((1, 25), np.float32), 1)


def test_what_does_not_fit_is_refused(folder):
    index = opened(folder)
    with pytest.raises(ValueError, match="don't fit"):
        index.add(keys_of([9999]), rows_of(1, dim=23))
    with pytest.raises(ValueError, match="NaN"):
        index.add(keys_of([9999]), np.full((1, 26), np.nan, np.float32))
    with pytest.raises(ValueError, match="queries"):
        index.search(queries_of(1, dim=20), 3)
    with pytest.raises(ConfigError, match="1 or more"):
        FlatIndex(folder, 24, 2, segment=0)
    assert len(index) == COUNT


def test_searching_needs_no_torch(folder):
    code = (
        "import sys, numpy as np; from fusemix_core.search.flat import FlatIndex; "
        f"i = FlatIndex({str(folder)!r}, 24, 2); i.search(np.ones((1, 26), np.float32), 3); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("asked", [3, 400])
def test_a_look_up_finds_each_key_few_or_many(asked):
    keys = keys_of(np.random.default_rng(0).permutation(1000))
    lookup = Lookup(keys)
    for _ in range(2):
        wanted = np.concatenate([keys[::-1][:asked], keys_of([5000, 6000])])
        expected = [*range(999, 999 - asked, -1), -1, -1]
        assert lookup.find(wanted).tolist() == expected
    assert Lookup(keys[:0]).find(keys[:2]).tolist() == [-1, -1]
