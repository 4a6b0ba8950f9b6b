"""The index by lists of faiss: what it finds beside an exact search, and its derived files."""

import subprocess
import sys

import numpy as np
import pytest
from search.vectors import keys_of, queries_of, rows_of

from fusemix_core.errors import ConfigError
from fusemix_core.search import ivf
from fusemix_core.search.flat import FlatIndex
from fusemix_core.search.ivf import FaissIndex

COUNT = 3000


def spread(rows: np.ndarray, by: float, seed: int) -> np.ndarray:
    """The same with noise: unit vectors again, and the further columns as they were."""
    noise = np.random.default_rng(seed).standard_normal((len(rows), 24)).astype(np.float32)
    near = rows[:, :24] + by * noise / np.sqrt(24)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    return np.concatenate([near, rows[:, 24:]], axis=1)


ROWS = spread(rows_of(COUNT), 0.8, seed=1)
ASKED = queries_of(60)[:, 24:]
QUERIES = spread(np.concatenate([ROWS[::50, :24], ASKED], axis=1), 0.5, seed=2)


def opened(folder, **options):
    return FaissIndex(folder, 24, 2, **{"segment": 512, "least": 1000} | options)


@pytest.fixture
def folder(tmp_path):
    index = opened(tmp_path / "i")
    index.add(keys_of(range(COUNT)), ROWS)
    index.settle()
    return tmp_path / "i"


def numbers(keys: np.ndarray) -> list[list[int]]:
    return (keys[..., 0] >> np.uint64(40)).astype(int).tolist()


def best(allowed=None) -> list[list[int]]:
    """The ten best rows of each query, by all products in float64."""
    products = QUERIES.astype(np.float64) @ ROWS.T.astype(np.float64)
    if allowed is not None:
        products[:, ~allowed] = -np.inf
    count = COUNT if allowed is None else int(allowed.sum())
    return np.argsort(-products, axis=1, kind="stable")[:, : min(10, count)].tolist()


def recall(found: np.ndarray, allowed=None) -> float:
    """The share of the best rows that are among those found."""
    pairs = zip(best(allowed), numbers(found), strict=True)
    return float(np.mean([np.isin(wanted, got).mean() for wanted, got in pairs]))


def the(folder, suffix: str):
    (path,) = folder.glob(f"*{suffix}")
    return path


def test_it_finds_nearly_all_of_the_best_with_their_exact_scores(folder):
    index = opened(folder)
    keys, scores = index.search(QUERIES, 10)
    assert index.recall() >= 0.97
    assert recall(keys) >= 0.95
    found = np.array(numbers(keys))
    exact = np.take_along_axis(QUERIES @ ROWS.T, found, axis=1)
    np.testing.assert_allclose(scores, exact, atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_it_looks_into_few_lists_only(folder, monkeypatch):
    """Else the recall would say nothing."""
    monkeypatch.setattr(ivf, "_LOOKED", 0)
    derived = opened(folder)._derived
    assert derived.probes < derived.index.nlist / 4
    assert recall(opened(folder, probes=1).search(QUERIES, 10)[0]) < 0.8


@pytest.mark.parametrize("share", [0.5, 0.05, 0.004])
def test_only_what_is_allowed_is_found_and_as_many_as_asked_for(folder, share):
    allowed = np.random.default_rng(1).random(COUNT) < share
    keys, _ = opened(folder).search(QUERIES, 10, allowed)
    assert keys.shape == (60, min(10, allowed.sum()), 2)
    assert allowed[np.array(numbers(keys))].all()
    assert recall(keys, allowed) >= 0.95
    assert opened(folder).search(QUERIES, 10, np.zeros(COUNT, bool))[0].shape == (60, 0, 2)


@pytest.mark.parametrize("count", [1, 100, COUNT, 2 * COUNT])
def test_any_number_can_be_asked_for(folder, count):
    keys, _ = opened(folder).search(QUERIES[:3], count)
    assert keys.shape == (3, min(count, COUNT), 2)
    assert all(len(set(row)) == len(row) for row in numbers(keys))


def test_what_is_removed_is_not_found_and_may_come_back(folder):
    index = opened(folder)
    file = the(folder, ".ivf")
    gone = np.arange(0, COUNT, 5)
    assert index.remove(keys_of(gone)) == len(gone)
    left = ~np.isin(np.arange(COUNT), gone)
    for one in (index, opened(folder)):
        keys, _ = one.search(QUERIES, 10)
        assert not np.isin(numbers(keys), gone).any()
        assert recall(keys, left) >= 0.95
    half = np.arange(len(index)) % 2 == 0
    allowed = np.isin(np.arange(COUNT), np.array(numbers(index.keys))[half])
    assert recall(index.search(QUERIES, 10, half)[0], allowed) >= 0.95
    index.settle()
    assert the(folder, ".ivf") == file, "a fifth is not worth new lists"
    index.add(keys_of(gone), ROWS[gone])
    assert recall(index.search(QUERIES, 10)[0]) >= 0.95
    index.settle()
    assert the(folder, ".ivf") != file
    assert recall(opened(folder).search(QUERIES, 10)[0]) >= 0.95


def test_rows_that_are_in_no_list_yet_are_all_compared(tmp_path):
    """Before `settle`, what is new is found exactly; afterwards it is in the lists."""
    index = opened(tmp_path / "i")
    index.add(keys_of(range(2000)), ROWS[:2000])
    index.settle()
    first = the(tmp_path / "i", ".ivf")
    index.add(keys_of(range(2000, COUNT)), ROWS[2000:])
    new = np.arange(COUNT) >= 2000
    newest = best(new)
    found = numbers(index.search(QUERIES, 10)[0])
    for every, some, one in zip(best(), newest, found, strict=True):
        assert set(every) & set(some) <= set(one)
    index.settle()
    assert the(tmp_path / "i", ".ivf") != first
    assert len(opened(tmp_path / "i")._places_beside) == 0
    assert recall(opened(tmp_path / "i").search(QUERIES, 10)[0]) >= 0.95


def test_few_new_rows_leave_the_file_as_it_is(folder):
    index, file = opened(folder), the(folder, ".ivf")
    index.add(keys_of([5000]), rows_of(1, seed=3))
    index.settle()
    assert the(folder, ".ivf") == file
    assert numbers(index.search(rows_of(1, seed=3), 1)[0]) == [[5000]]


def test_compacting_keeps_every_answer(folder):
    index = opened(folder)
    index.remove(keys_of(range(100, 900)))
    index.compact()
    left = ~np.isin(np.arange(COUNT), range(100, 900))
    assert recall(index.search(QUERIES, 10)[0], left) >= 0.95
    index.settle()
    assert recall(opened(folder).search(QUERIES, 10)[0], left) >= 0.95


def test_with_few_rows_it_is_exact_and_makes_no_lists(tmp_path):
    index = opened(tmp_path / "i", least=COUNT + 1)
    index.add(keys_of(range(COUNT)), ROWS)
    index.settle()
    assert not list((tmp_path / "i").glob("*.ivf")) and index.recall() is None
    assert numbers(index.search(QUERIES, 10)[0]) == best()


def test_an_index_that_shrinks_below_the_least_is_exact_again(folder):
    index = opened(folder)
    index.remove(keys_of(range(900, COUNT)))
    index.settle()
    assert not list(folder.glob("*.ivf")) and not (folder / "ivf.json").exists()
    left = np.arange(COUNT) < 900
    assert numbers(index.search(QUERIES, 10)[0]) == best(left)


def test_a_flat_index_becomes_one_and_is_one_still(tmp_path):
    """The lists are beside the segments, which both read."""
    flat = FlatIndex(tmp_path / "i", 24, 2, segment=512)
    flat.add(keys_of(range(COUNT)), ROWS)
    opened(tmp_path / "i").settle()
    assert recall(opened(tmp_path / "i").search(QUERIES, 10)[0]) >= 0.95
    flat.refresh()
    assert numbers(flat.search(QUERIES, 10)[0]) == best()


def test_every_flipped_byte_of_the_lists_is_reported_harmless_and_mended(folder):
    paths = [the(folder, ".ivf"), folder / "ivf.json"]
    draw = np.random.default_rng(0)
    for path in paths:
        content = path.read_bytes()
        for at in [0, 9, len(content) - 1, *draw.integers(0, len(content), 6)]:
            broken = bytearray(content)
            broken[at] ^= 1 << int(draw.integers(0, 8))
            path.write_bytes(broken)
            index = opened(folder)
            assert len(index.check()) == 1, (path, at)
            assert numbers(index.search(QUERIES, 10)[0]) == best(), (path, at)
        mended = opened(folder)
        assert len(mended.repair()) == 1 and len(mended) == COUNT
        mended.settle()
        assert not opened(folder).check() and opened(folder).recall()
        assert recall(opened(folder).search(QUERIES, 10)[0]) >= 0.95
        paths[0] = the(folder, ".ivf")


def test_lost_lists_are_made_again(folder):
    the(folder, ".ivf").unlink()
    index = opened(folder)
    assert "missing" in index.check()[0]
    assert numbers(index.search(QUERIES, 10)[0]) == best()
    index.repair()
    index.settle()
    assert not index.check() and index.recall()


def test_a_damaged_segment_takes_its_rows_out_of_the_lists(folder):
    path = sorted(folder.glob("*.vectors"))[0]
    path.write_bytes(path.read_bytes()[:-1] + b"\x99")
    index = opened(folder)
    assert len(index.repair()) == 1
    assert len(index) < COUNT
    keys, _ = index.search(QUERIES, 10)
    left = np.isin(np.arange(COUNT), np.array(numbers(index.keys)))
    assert recall(keys, left) >= 0.95
    index.add(keys_of(range(COUNT)), ROWS)
    index.settle()
    assert recall(opened(folder).search(QUERIES, 10)[0]) >= 0.95


def test_an_open_index_answers_as_before_until_it_is_refreshed(folder):
    reader, writer = opened(folder), opened(folder)
    before = reader.search(QUERIES, 5)[0]
    writer.remove(before.reshape(-1, 2))
    writer.compact()
    writer.settle()
    np.testing.assert_array_equal(reader.search(QUERIES, 5)[0], before)
    reader.refresh()
    assert not np.isin(numbers(reader.search(QUERIES, 5)[0]), numbers(before)).any()


def test_rows_of_any_length_and_equal_rows_can_be_listed(tmp_path):
    rows = np.repeat(rows_of(50), 30, axis=0) * np.geomspace(1e-3, 1e3, 1500)[:, None]
    rows[7] = 0
    index = opened(tmp_path / "i", probes=10_000)
    index.add(keys_of(range(1500)), rows.astype(np.float32))
    index.settle()
    assert index.search(QUERIES, 10)[0].shape == (60, 10, 2)


def test_options_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="0 or more"):
        opened(tmp_path, lists=-1)


def test_searching_needs_no_torch(folder):
    code = (
        "import sys, numpy as np; from fusemix_core.search.ivf import FaissIndex; "
        f"i = FaissIndex({str(folder)!r}, 24, 2); i.search(np.ones((1, 26), np.float32), 3); "
        "assert i.recall() and 'faiss' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
