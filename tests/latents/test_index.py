"""The index of large views, made small by patching the sizes from which it is kept."""

import os
import random
import tracemalloc

import numpy as np
import pytest
import torch

from fusemix_core.errors import ArtefactError
from fusemix_core.latents import index as index_module
from fusemix_core.latents import shards as shards_module
from fusemix_core.latents import stamps as stamps_module
from fusemix_core.latents import tables as tables_module
from fusemix_core.latents import upkeep
from fusemix_core.latents.lookup import find
from fusemix_core.latents.segments import Segment, first_at, segment_of
from fusemix_core.latents.shards import read_header, shard_id, write_shard
from fusemix_core.latents.store import LatentStore

FP = "0123456789abcdef0123456789abcdef"
VIEW = (FP, "pooled")


@pytest.fixture
def small(monkeypatch):
    """Segments of 20 items or more, four of a kind become one."""
    monkeypatch.setattr(index_module, "SEGMENT_ITEMS", 20)
    monkeypatch.setattr(index_module, "FAN_IN", 4)
    monkeypatch.setattr("fusemix_core.latents.segments._BUCKET", 16)


@pytest.fixture
def stamped(monkeypatch):
    """Stamps for views of any size, and for files as young as they are here."""
    monkeypatch.setattr(upkeep, "STAMPED", 0)
    monkeypatch.setattr(index_module, "STAMPED", 0)
    monkeypatch.setattr(stamps_module, "_SETTLED", -(10**12))


def keys_of(n, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, (n, 2), np.uint64)


def write(store, keys, dtype="float16"):
    """One shard whose latents tell their keys."""
    values = (keys[:, 1] % np.uint64(997)).astype(dtype)[:, None]
    return write_shard(store.folder / FP / "pooled", keys, values, {})


def filled(store, sizes, seed=0):
    keys = keys_of(sum(sizes), seed)
    for part in np.split(keys, np.cumsum(sizes)[:-1]):
        write(store, part)
    return keys


def values(store, keys, dtype="float16"):
    table = store.open(*VIEW, keys, dtype)
    return table.rows(torch.arange(len(keys)))[:, 0].numpy()


def expected(keys):
    return (keys[:, 1] % np.uint64(997)).astype(np.float16).astype(np.float32)


def again(store):
    return LatentStore(store.folder.parent)


def index_of(store):
    return store.folder / FP / "pooled" / "index"


def segments(store):
    return sorted(index_of(store).glob("*.idx"))


# -- answers -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_store_that_grows_shrinks_and_merges_answers_as_a_dictionary(store, small):
    rng = random.Random(1)
    pool = keys_of(400)
    held: dict[str, dict[tuple, str]] = {}
    most = 0
    for step in range(45):
        if held and rng.random() < 0.3:
            name = rng.choice(sorted(held))
            (store.folder / FP / "pooled" / name).unlink()
            del held[name]
        else:
            keys = pool[rng.sample(range(len(pool)), rng.randrange(1, 30))]
            dtype = rng.choice(["float16", "float32"])
            shard = write(store, keys, dtype)
            held[shard.path.name] = {tuple(k): dtype for k in keys.tolist()}
        if step % 3 == 0:
            store = again(store)
        for dtype in ("float16", "float32"):
            there = {k for one in held.values() for k, d in one.items() if d in (dtype, "float32")}
            missing = store.missing(*VIEW, pool, dtype)
            assert missing.tolist() == [tuple(k) not in there for k in pool.tolist()]
            if there:
                np.testing.assert_array_equal(
                    values(store, pool[~missing], dtype), expected(pool[~missing])
                )
        most = max(most, len(segments(store)))
    assert 2 <= most <= 8


def test_the_first_shard_counts_in_segments_and_out_of_them(tmp_path):
    rng = np.random.default_rng(3)
    for turn in range(20):
        folder = tmp_path / str(turn)
        keys = [rng.integers(0, 5, (rng.integers(1, 9), 2), np.uint64) for _ in range(6)]
        shards = [write_shard(folder, k, np.ones((len(k), 1), np.float16), {}) for k in keys]
        wanted = rng.integers(0, 6, (60, 2), np.uint64)
        plain = find(shards, wanted)
        for cut in range(7):
            parts = [part for part in (shards[:cut:2], shards[1:cut:2]) if part]
            made = {}
            for part in parts:
                one = segment_of(folder / "index", part)
                number = {s.path: i for i, s in enumerate(shards)}
                made[one] = np.array([number[s.path] for s in one.shards], np.int32)
            mixed = find(shards, wanted, made)
            assert mixed.shard.tolist() == plain.shard.tolist()
            for s, r, p in zip(mixed.shard, mixed.row, plain.row, strict=True):
                assert s < 0 or (shards[s].keys[r] == shards[s].keys[p]).all()


def test_a_search_in_few_rows_agrees_with_one_in_all():
    rows = np.zeros((50, 3), np.uint64)
    rows[:, 0] = np.sort(np.random.default_rng(0).integers(0, 40, 50))
    asked = np.arange(42, dtype=np.uint64)
    assert first_at(rows, asked).tolist() == np.searchsorted(rows[:, 0], asked).tolist()
    assert first_at(rows[:0], asked).tolist() == [0] * 42


def test_a_look_up_takes_less_than_20_bytes_a_key(tmp_path, monkeypatch):
    keys = keys_of(1 << 20)
    shard = write_shard(tmp_path, keys, np.ones((len(keys), 1), np.float16), {})
    segment = segment_of(tmp_path / "index", [shard])
    shard.let_go()
    tracemalloc.start()
    places = find([shard], keys, {segment: np.zeros(1, np.int32)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * len(keys)
    assert (places.row == np.arange(len(keys))).all()


# -- what is read and written ----------------------------------------------------------------------


def test_small_views_have_no_index(store):
    keys = filled(store, [10] * 5)
    values(again(store), keys)
    assert not index_of(store).exists()


def test_with_an_index_opening_reads_no_keys(store, small, monkeypatch):
    keys = filled(store, [10] * 9)
    values(store, keys)
    assert segments(store)
    read = []
    monkeypatch.setattr(shards_module.Shard, "hold", lambda self: read.append(self.path))
    np.testing.assert_array_equal(values(again(store), keys), expected(keys))
    assert read == []


def test_an_old_store_is_indexed_as_it_is_and_added_to(store, small):
    keys = filled(store, [30, 30])
    before = {p: p.read_bytes() for p in (store.folder / FP / "pooled").glob("*.safetensors")}
    np.testing.assert_array_equal(values(again(store), keys), expected(keys))
    more = filled(store, [7], seed=9)
    both = np.concatenate([keys, more])
    np.testing.assert_array_equal(values(again(store), both), expected(both))
    assert all(p.read_bytes() == data for p, data in before.items())


def test_segments_of_the_same_shards_are_the_same_file(store, small, tmp_path):
    other = LatentStore(tmp_path / "other")
    for one, sizes in ((store, [30, 25, 28]), (other, [30, 25, 28])):
        values(one, filled(one, sizes))
    first, second = segments(store), segments(other)
    assert [p.name for p in first] == [p.name for p in second]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_a_folder_that_cannot_be_written_is_read_without_an_index(store, small, monkeypatch):
    keys = filled(store, [30, 30])

    def read_only(*_):
        raise PermissionError(13, "Permission denied")

    fresh = again(store)
    monkeypatch.setattr("fusemix_core.latents.segments.write_atomically", read_only)
    notes = fresh.repair(*VIEW, keys, "float16")
    assert len(notes) == 1 and "Permission denied" in notes[0] and "in memory" in notes[0]
    np.testing.assert_array_equal(values(fresh, keys), expected(keys))
    assert fresh.repair(*VIEW, keys, "float16") == []


def test_a_shard_under_another_name_is_found_but_not_indexed(store, small):
    keys = filled(store, [30])
    (path,) = (store.folder / FP / "pooled").glob("*.safetensors")
    path.rename(path.with_name("mine.safetensors"))
    np.testing.assert_array_equal(values(again(store), keys), expected(keys))
    assert segments(store) == []


def test_a_shard_made_anew_with_another_header_is_read_by_its_own(store, small):
    keys = filled(store, [30])
    values(store, keys)
    (path,) = (store.folder / FP / "pooled").glob("*.safetensors")
    path.unlink()
    write_shard(path.parent, keys, np.full((30, 1), 7, np.float16), {"fusemix": "99.9.9-longer"})
    assert (values(again(store), keys) == 7).all()
    assert (values(store, keys) == 7).all()


# -- damage ----------------------------------------------------------------------------------------


def test_any_damage_to_a_segment_is_found_said_and_mended(store, small):
    keys = filled(store, [12, 12])
    values(store, keys)
    (path,) = segments(store)
    sound = path.read_bytes()
    for at in [*range(0, len(sound), 41), len(sound) - 1]:
        damaged = bytearray(sound)
        damaged[at] ^= 1 << (at % 8)
        path.write_bytes(damaged)
        assert [b.path for b in store.verify()] == [path]
        fresh = again(store)
        assert not fresh.missing(*VIEW, keys, "float16").any()
        notes = fresh.repair(*VIEW, keys, "float16")
        assert len(notes) == 1 and path.name in notes[0], f"byte {at}"
        assert path.read_bytes() == sound
    for length in range(0, len(sound), 53):
        path.write_bytes(sound[:length])
        np.testing.assert_array_equal(values(again(store), keys), expected(keys))
        assert path.read_bytes() == sound


def test_a_damaged_shard_that_is_indexed_is_set_aside_and_made_again(store, small):
    keys = filled(store, [30, 30])
    values(store, keys)
    name = shard_id(keys[:30], "float16") + ".safetensors"
    path = store.folder / FP / "pooled" / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    fresh = again(store)
    assert len(fresh.repair(*VIEW, keys, "float16")) == 1
    assert fresh.missing(*VIEW, keys, "float16").tolist() == [True] * 30 + [False] * 30
    write(fresh, keys[:30])
    np.testing.assert_array_equal(values(fresh, keys), expected(keys))


def test_an_indexed_shard_cut_short_is_missing_at_once(store, small):
    keys = filled(store, [30, 30])
    values(store, keys)
    path = store.folder / FP / "pooled" / f"{shard_id(keys[:30], 'float16')}.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    assert again(store).missing(*VIEW, keys, "float16").tolist() == [True] * 30 + [False] * 30


# -- stamps ----------------------------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch):
    """The names of shards that are read whole."""
    seen, verify = [], shards_module.verify_shard
    monkeypatch.setattr(upkeep, "verify_shard", lambda s: (seen.append(s.path.name), verify(s)))
    return seen


def test_an_unchanged_shard_is_hashed_once_in_all_processes(store, stamped, hashed):
    keys = filled(store, [5, 5])
    for _ in range(3):
        np.testing.assert_array_equal(values(again(store), keys), expected(keys))
    assert len(hashed) == 2
    assert again(store).verify() == [] and len(hashed) == 4


@pytest.mark.parametrize("how", ["written", "replaced", "touched"])
def test_a_shard_that_changed_is_hashed_again(store, stamped, hashed, how):
    keys = filled(store, [5, 5])
    values(again(store), keys)
    path = store.folder / FP / "pooled" / hashed[0]
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= how != "touched"
    if how == "replaced":
        path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as `cp -p` or a rogue tool
    notes = again(store).repair(*VIEW, keys, "float16")
    assert hashed[2:] == [path.name] and len(notes) == (how != "touched")


def test_small_and_young_files_are_not_stamped(store, hashed, monkeypatch):
    keys = filled(store, [5])
    for _ in range(2):
        values(again(store), keys)
    assert len(hashed) == 2 and not index_of(store).exists()
    monkeypatch.setattr(upkeep, "STAMPED", 0)
    values(again(store), keys)
    assert len(hashed) == 3 and not index_of(store).exists()  # it may change within a tick


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 3}', "[" * 9999])
def test_damaged_stamps_are_worth_nothing(store, stamped, hashed, content):
    keys = filled(store, [5])
    values(again(store), keys)
    (index_of(store) / "verified.json").write_text(content)
    values(again(store), keys)
    assert len(hashed) == 2


def test_of_the_processes_of_a_machine_only_the_first_verifies(store, hashed, monkeypatch):
    keys = filled(store, [5])
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    np.testing.assert_array_equal(values(again(store), keys), expected(keys))
    assert hashed == []
    monkeypatch.setenv("LOCAL_RANK", "0")
    values(again(store), keys)
    assert len(hashed) == 1


# -- many shards -----------------------------------------------------------------------------------


def maps():
    with open("/proc/self/maps") as file:
        return sum(".safetensors" in line for line in file)


def unequal(store, keys):
    """Shards of latents of 1 to 3 rows an item, that tell their keys."""
    for part in np.split(keys, range(2, len(keys), 2)):
        lengths = (part[:, 0] % np.uint64(3) + np.uint64(1)).astype(np.int64)
        rows = np.repeat((part[:, 1] % np.uint64(997)).astype(np.float16), lengths)[:, None]
        write_shard(store.folder / FP / "pooled", part, rows, {}, lengths)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="maps as Linux tells them")
@pytest.mark.parametrize("ragged", [False, True])
def test_of_many_shards_few_are_mapped_at_once(store, small, monkeypatch, ragged):
    monkeypatch.setattr(tables_module, "MOST_MAPS", 3)
    keys = keys_of(80)
    if ragged:
        unequal(store, keys)
    else:
        filled(store, [2] * 40)
    before = maps()
    table = store.open(*VIEW, keys, "float16")
    for index in (torch.arange(80), torch.randperm(80), torch.tensor([79, 0])):
        rows = table.rows(index)
        found = (rows.values[:, 0] if ragged else rows)[:, 0].numpy()
        np.testing.assert_array_equal(found, expected(keys[index.numpy()]))
        assert maps() - before <= 3


def test_a_shard_that_is_gone_before_it_is_mapped_is_an_error(store, monkeypatch):
    monkeypatch.setattr(tables_module, "MOST_MAPS", 1)
    keys = filled(store, [5, 5, 5])
    table = store.open(*VIEW, keys, "float16")
    table.rows(torch.arange(5))
    write(store, keys[5:10])  # the same items by another process: the same file
    np.testing.assert_array_equal(
        table.rows(torch.arange(5, 10))[:, 0].numpy(), expected(keys[5:10])
    )
    store.prune(all=True)
    with pytest.raises(ArtefactError, match="can't be read any more") as caught:
        table.rows(torch.arange(15))
    assert "Run the same command again" in caught.value.hint


# -- upkeep ----------------------------------------------------------------------------------------


def test_prune_takes_the_index_along(store, small, stamped):
    keys = filled(store, [30, 30])
    fresh = again(store)
    values(fresh, keys)
    assert segments(store) and (index_of(store) / "verified.json").exists()
    (index_of(store) / ".x.1.tmp").write_bytes(b"12345")
    assert store.prune().files == 1
    assert len(segments(store)) == 1
    assert store.prune(fingerprint=FP[:4]).files == 2 + 1 + 1  # shards, segment, stamps
    assert list(store.folder.iterdir()) == []
    assert fresh.missing(*VIEW, keys, "float16").all()


def test_prune_deletes_a_damaged_segment(store, small):
    values(store, filled(store, [30]))
    (path,) = segments(store)
    path.write_bytes(path.read_bytes()[:-1])
    assert store.prune().files == 1 and segments(store) == []


def test_list_counts_what_shards_hold(store, small):
    keys = filled(store, [30, 30])
    values(store, keys)
    (row,) = again(store).views()
    paths = list((store.folder / FP / "pooled").glob("*.safetensors"))
    assert (row.items, row.bytes) == (60, sum(p.stat().st_size for p in paths))
    assert all(len(read_header(p)) == 30 for p in paths)
    assert len(Segment(segments(store)[0])) == 60
