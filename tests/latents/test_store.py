import os
import time

import numpy as np
import pytest
import torch

from fusemix_core.errors import ArtefactError
from fusemix_core.latents import shards as shards_module
from fusemix_core.latents.lookup import find
from fusemix_core.latents.shards import Shard
from fusemix_core.latents.store import LatentStore

FP = "0123456789abcdef0123456789abcdef"


def keys_of(n, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, (n, 2), np.uint64)


def fill(store, toy, keys, sizes, dtype="float16", shape=(6,), fp=FP, view="pooled"):
    """Store random latents of the keys in shards of these sizes; returns them float32."""
    latents = np.random.default_rng(1).standard_normal((len(keys), *shape)).astype(np.float16)
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        values = latents[part].astype(np.float32)
        store.write(fp, view, keys[part], values, spec=toy.spec(), store_dtype=dtype)
        start += size
    return latents.astype(np.float32)


def paths(store, fp=FP, view="pooled"):
    return sorted((store.folder / fp / view).glob("*.safetensors"))


def flip(path, at=-3):
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


# -- look-up -------------------------------------------------------------------------------------


def shard_of(keys):
    return Shard(None, keys, (1,), "float16", 0, 0, {})


def test_find_agrees_with_a_dictionary():
    rng = np.random.default_rng(3)
    for _ in range(30):
        # Few values, so that halves collide and keys repeat in one shard and across shards.
        shards = [
            shard_of(rng.integers(0, 6, (rng.integers(1, 9), 2), np.uint64)) for _ in range(4)
        ]
        wanted = rng.integers(0, 7, (40, 2), np.uint64)
        first = {}
        for s, shard in enumerate(shards):
            for r, key in enumerate(shard.keys.tolist()):
                first.setdefault(tuple(key), (s, r))
        places = find(shards, wanted)
        for i, key in enumerate(wanted.tolist()):
            shard, row = first.get(tuple(key), (-1, 0))
            assert places.shard[i] == shard
            assert places.missing[i] == (shard < 0)
            if shard >= 0:
                assert shards[shard].keys[places.row[i]].tolist() == key


def test_find_in_nothing():
    assert find([], keys_of(3)).missing.all()
    assert len(find([shard_of(keys_of(3))], keys_of(0)).shard) == 0


# -- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6,), (3, 2)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_gathering_agrees_with_naive_indexing(store, toy, dtype, shape):
    keys = keys_of(60)
    latents = fill(store, toy, keys, [10, 1, 30, 19], dtype, shape)
    order = np.random.default_rng(2).permutation(60)[:47]
    table = store.open(FP, "pooled", keys[order], dtype)
    assert len(table) == 47 and table.dim == 6 and table.shape == shape
    assert table.nbytes == 47 * 6 * (2 if dtype == "float16" else 4)
    for index in ([], [0], [5, 5, 5], list(range(47)), [46, 0, 13, 13, 2]):
        rows = table.rows(torch.tensor(index, dtype=torch.int64))
        assert rows.dtype == torch.float32 and rows.shape == (len(index), *shape)
        np.testing.assert_array_equal(rows.numpy(), latents[order][index])
    resident = table.load()
    assert resident.latents.dtype == getattr(torch, dtype)
    assert (resident.shape, resident.dim) == (shape, 6)
    assert torch.equal(resident.rows(torch.arange(47)), table.rows(torch.arange(47)))


def test_rows_of_absent_items_are_zeros_and_others_must_be_there(store, toy):
    keys = keys_of(12)
    latents = fill(store, toy, keys[:10], [10])
    table = store.open(FP, "pooled", keys, "float16", absent=[10, 11])
    assert table.rows(torch.tensor([10, 3, 11])).tolist() == [[0] * 6, latents[3].tolist(), [0] * 6]
    assert table.rows(torch.tensor([11])).tolist() == [[0] * 6]
    np.testing.assert_array_equal(table.load().latents[:10].float().numpy(), latents)
    with pytest.raises(ArtefactError, match="1 of 12 latents") as caught:
        store.open(FP, "pooled", keys, "float16", absent=[10])
    assert "Run the same command again" in caught.value.hint


def test_float32_serves_both_and_float16_only_itself(store, toy):
    keys = keys_of(20)
    fill(store, toy, keys[:10], [10], "float16")
    fill(store, toy, keys[5:], [15], "float32")
    assert store.missing(FP, "pooled", keys, "float32").tolist() == [True] * 5 + [False] * 15
    assert not store.missing(FP, "pooled", keys, "float16").any()
    assert store.missing(FP, "layers", keys, "float16").all()
    assert store.missing("f" * 32, "pooled", keys, "float16").all()
    # What is there as float16 is read from there, so that a float32 run changes no float16 one.
    assert store.open(FP, "pooled", keys[:10], "float16").dtype == torch.float16
    assert store.open(FP, "pooled", keys, "float16").load().latents.dtype == torch.float32


def test_many_shards_hold_no_file_open(store, toy):
    keys = keys_of(80)
    latents = fill(store, toy, keys, [2] * 40)
    before = len(os.listdir("/proc/self/fd"))
    table = store.open(FP, "pooled", keys, "float16")
    np.testing.assert_array_equal(table.rows(torch.arange(80)).numpy(), latents)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_mapped_table_outlives_its_files_and_never_changes_them(store, toy):
    keys = keys_of(10)
    latents = fill(store, toy, keys, [10])
    table = store.open(FP, "pooled", keys, "float16")
    before = paths(store)[0].read_bytes()
    table._maps[0].zero_()
    assert paths(store)[0].read_bytes() == before
    table = store.open(FP, "pooled", keys, "float16")
    store.prune(all=True)
    np.testing.assert_array_equal(table.rows(torch.arange(10)).numpy(), latents)


def test_shapes_that_differ_are_refused(store, toy):
    keys = keys_of(4)
    fill(store, toy, keys[:2], [2], shape=(6,))
    fill(store, toy, keys[2:], [2], shape=(7,))
    with pytest.raises(ArtefactError, match="shapes") as caught:
        store.open(FP, "pooled", keys, "float16")
    assert FP in caught.value.hint


def test_names_that_leave_the_store_are_refused(store):
    for fp, view in (("../x", "pooled"), (FP, "a/b"), ("..", "pooled"), ("", "pooled")):
        with pytest.raises(ValueError):
            store.missing(fp, view, keys_of(1), "float16")


# -- damage --------------------------------------------------------------------------------------


def test_a_truncated_shard_is_missing_set_aside_and_said(store, toy):
    keys = keys_of(20)
    fill(store, toy, keys, [10, 10])
    path = next(p for p in paths(store) if (shards_module.read_shard(p).keys == keys[:10]).all())
    os.truncate(path, os.path.getsize(path) - 1)
    fresh = LatentStore(store.folder.parent)
    expected = [True] * 10 + [False] * 10
    assert fresh.missing(FP, "pooled", keys, "float16").tolist() == expected
    said = fresh.repair(FP, "pooled", keys, "float16")
    assert len(said) == 1 and path.name in said[0] and "truncated" in said[0]
    assert not path.exists() and path.with_name(path.name + ".bad").exists()
    assert fresh.missing(FP, "pooled", keys, "float16").tolist() == expected
    assert fresh.repair(FP, "pooled", keys, "float16") == []


def test_a_flipped_bit_is_found_at_open_only_where_needed(store, toy):
    keys = keys_of(20)
    latents = fill(store, toy, keys, [10, 10])
    path = next(p for p in paths(store) if (shards_module.read_shard(p).keys == keys[10:]).all())
    flip(path)
    fresh = LatentStore(store.folder.parent)
    assert not fresh.missing(FP, "pooled", keys, "float16").any()
    table = fresh.open(FP, "pooled", keys[:10], "float16")
    np.testing.assert_array_equal(table.load().latents.float().numpy(), latents[:10])
    with pytest.raises(ArtefactError, match="10 of 20 latents.*checksum"):
        fresh.open(FP, "pooled", keys, "float16")
    assert not path.exists()


def test_items_of_a_bad_shard_may_be_found_in_another(store, toy):
    keys = keys_of(10)
    latents = fill(store, toy, keys, [10], "float16")
    flip(paths(store)[0])
    fill(store, toy, keys, [10], "float32")
    fresh = LatentStore(store.folder.parent)
    table = fresh.open(FP, "pooled", keys, "float16")
    np.testing.assert_array_equal(table.load().latents.numpy(), latents)


def test_a_bad_shard_that_cannot_be_moved_is_still_not_used(store, toy, monkeypatch):
    keys = keys_of(10)
    fill(store, toy, keys, [10])
    flip(paths(store)[0])
    fresh = LatentStore(store.folder.parent)

    def read_only(*_):
        raise PermissionError("read-only")

    with monkeypatch.context() as patch:
        patch.setattr(shards_module.os, "replace", read_only)
        assert len(fresh.repair(FP, "pooled", keys, "float16")) == 1
    assert fresh.missing(FP, "pooled", keys, "float16").all()
    fill(fresh, toy, keys, [10])
    assert not fresh.missing(FP, "pooled", keys, "float16").any()


def test_a_shard_is_verified_once_a_process_until_it_changes(store, toy, monkeypatch):
    keys = keys_of(10)
    fill(store, toy, keys, [10])
    fresh = LatentStore(store.folder.parent)
    verify, seen = shards_module.verify_shard, []
    monkeypatch.setattr(
        "fusemix_core.latents.upkeep.verify_shard", lambda s: (seen.append(s.path), verify(s))
    )
    for _ in range(3):
        fresh.open(FP, "pooled", keys, "float16")
    assert len(seen) == 1
    flip(paths(store)[0])
    assert len(fresh.repair(FP, "pooled", keys, "float16")) == 1


# -- upkeep --------------------------------------------------------------------------------------


def test_list_tells_what_is_there(store, toy):
    assert store.views() == []
    fill(store, toy, keys_of(20), [10, 10])
    fill(store, toy, keys_of(5, seed=9), [5], "float32", fp="f" * 32, view="layers", shape=(2, 3))
    fill(store, toy, keys_of(5, seed=8), [5], "float32")
    first, second = store.views()
    assert (first.encoder, first.fingerprint, first.view) == ("toy", FP, "pooled")
    assert (first.items, first.dtype) == (25, "mixed")
    assert first.bytes == sum(p.stat().st_size for p in paths(store))
    assert abs(first.modified - time.time()) < 60
    assert (second.view, second.items, second.dtype) == ("layers", 5, "float32")


def test_verify_names_the_bad_and_changes_nothing(store, toy):
    fill(store, toy, keys_of(30), [10, 10, 10])
    flip(paths(store)[1])
    os.truncate(paths(store)[2], 20)
    found = store.verify()
    assert [b.path for b in found] == paths(store)[1:]
    assert "checksum" in found[0].reason and "truncated" in found[1].reason
    assert len(paths(store)) == 3


def leave_rubbish(store):
    folder = store.folder / FP / "pooled"
    (folder / ".x.1.tmp").write_bytes(b"12345")
    (folder / "y.safetensors.bad").write_bytes(b"123")


def test_prune_removes_rubbish_and_damaged_shards(store, toy):
    fill(store, toy, keys_of(20), [10, 10])
    leave_rubbish(store)
    bad = paths(store)[0]
    flip(bad)
    size = bad.stat().st_size
    pruned = store.prune()
    assert (pruned.files, pruned.bytes) == (3, size + 8)
    assert len(list((store.folder / FP / "pooled").iterdir())) == 1


def test_prune_by_fingerprint_age_and_all(store, toy):
    fill(store, toy, keys_of(20), [10, 10])
    fill(store, toy, keys_of(5), [5], fp="f" * 32)
    leave_rubbish(store)
    week_ago = time.time() - 7 * 86400
    os.utime(paths(store)[0], (week_ago, week_ago))
    assert store.prune(older_than=8).files == 2  # the rubbish
    assert store.prune(older_than=6, fingerprint="ff").files == 0
    assert store.prune(older_than=6).files == 1
    assert store.prune(fingerprint="ff").files == 1
    assert not (store.folder / ("f" * 32)).exists()
    freed = sum(p.stat().st_size for p in paths(store))
    assert store.prune(all=True).bytes == freed
    assert list(store.folder.iterdir()) == []
    assert store.missing(FP, "pooled", keys_of(20), "float16").all()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory as Linux tells it")
def test_what_was_read_from_disk_holds_no_memory(store, toy):
    """A walk over 64 MB in chunks of 1 MB leaves a few MB in the process."""
    keys = keys_of(8192)
    fill(store, toy, keys, [4096, 4096], shape=(4096,))
    table = store.open(FP, "pooled", keys, "float16")

    def mapped():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("RssFile")) / 1024

    before = mapped()
    for ids in torch.arange(8192).split(128):
        table.rows(ids)
        assert mapped() - before < 8
