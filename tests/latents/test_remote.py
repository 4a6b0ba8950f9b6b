"""A latent store in an object store: tested against a server that speaks S3 over HTTP."""

from __future__ import annotations

import threading
import uuid

import numpy as np
import pytest
import torch
from object_server import serving

from fusemix_core.errors import ArtefactError
from fusemix_core.latents import extraction, index
from fusemix_core.latents.bucket import Bucket
from fusemix_core.latents.remote import RemoteStore, store_at
from fusemix_core.latents.store import LatentStore

SHARDS = ".safetensors"


@pytest.fixture(scope="module")
def server():
    with serving() as found:
        yield found


@pytest.fixture
def url(server, monkeypatch):
    """An address of its own, and the credentials in the environment."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server.bucket(f"test-{uuid.uuid4().hex}") + "/some/prefix"


@pytest.fixture(autouse=True)
def hundred_items_a_shard(monkeypatch):
    monkeypatch.setattr(extraction, "shard_size", lambda items: 100)


@pytest.fixture
def machine(tmp_path, url):
    """A store as a machine of this name sees it: the caches of two are apart."""
    return lambda name, **how: RemoteStore(url, tmp_path / name, **how)


def equal(a, b, rows=None):
    rows = torch.arange(len(a.table)) if rows is None else torch.tensor(rows)
    a, b = a.table.rows(rows), b.table.rows(rows)
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return torch.equal(a.values, b.values) and torch.equal(a.mask, b.mask)


# -- writing and reading ---------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_of_several_devices_fill_it_together(toy, machine, monkeypatch):
    items, store = toy.ToyItems(toy.texts(230)), machine("a", cache_bytes=1 << 20)
    with monkeypatch.context() as patched:
        patched.setattr(extraction, "processes_for", lambda held, items: True)
        found = toy.extracted(toy.spec(), items, store, device=["cpu", "cpu"], batch_size=8)
    assert found.encoded == 230 and toy.ToyEncoder.loads == 0
    again = toy.extracted(toy.spec(), items, store)
    assert (again.encoded, again.cached) == (0, 230) and equal(found, again)


@pytest.mark.parametrize("view", ["pooled", "tokens"])
def test_a_second_machine_reuses_what_the_first_has_encoded(
    toy, tmp_path, machine, url, server, view
):
    items, spec = toy.ToyItems(toy.texts(330)), toy.spec()
    here = toy.extracted(spec, items, LatentStore(tmp_path / "local"), view=view)
    first = toy.extracted(spec, items, machine("a"), view=view)
    loads = toy.ToyEncoder.loads
    second = toy.extracted(spec, items, machine("b"), view=view)
    assert (first.encoded, first.cached, second.encoded, second.cached) == (330, 0, 0, 330)
    assert toy.ToyEncoder.loads == loads
    assert equal(first, here) and equal(second, here)
    local = {
        str(p.relative_to(tmp_path / "local")): p.read_bytes()
        for p in (tmp_path / "local").rglob(f"*{SHARDS}")
    }
    assert server.objects(url, SHARDS) == local, "the objects are a local store's files"
    # A third knows what is there without fetching a shard.
    third = machine("c")
    assert not third.missing(here.fingerprint, view, items.keys, "float16").any()
    whole = sum(len(data) for data in local.values())
    assert sum(p.stat().st_size for p in third.folder.rglob(f"*{SHARDS}")) < whole / 1.2


def test_a_shard_is_fetched_once_and_kept(toy, machine, monkeypatch):
    items, spec = toy.ToyItems(toy.texts(250)), toy.spec()
    toy.extracted(spec, items, machine("a"))
    toy.extracted(spec, items, machine("b"))
    reads = counted_reads(monkeypatch)
    again = toy.extracted(spec, items, machine("b"))
    assert again.cached == 250 and reads == []
    toy.extracted(spec, items, machine("a"))
    assert reads == [], "what it wrote itself, a machine has"


def counted_reads(monkeypatch):
    reads, real = [], Bucket.read

    def read(self, name, start, end):
        reads.append((name, start, end))
        return real(self, name, start, end)

    monkeypatch.setattr(Bucket, "read", read)
    return reads


def test_a_grown_dataset_and_two_writers_at_once_lose_nothing(toy, machine, url, server):
    spec = toy.spec(options={"delay": 0.002})
    parts = [toy.ToyItems(toy.texts(260)), toy.ToyItems(toy.texts(260, start=130))]
    faults = []

    def write(name, items):
        try:
            encoder = toy.ToyEncoder(spec)
            toy.extracted(spec, items, machine(name), encoder=encoder, batch_size=20)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=row) for row in zip("ab", parts, strict=True)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not faults
    both = toy.extracted(spec, toy.ToyItems(toy.texts(390)), machine("c"))
    assert (both.encoded, both.cached) == (0, 390)
    assert machine("d").verify() == []


def test_keys_of_many_shards_are_indexed_here(toy, machine, monkeypatch):
    monkeypatch.setattr(index, "SEGMENT_ITEMS", 200)
    items, spec = toy.ToyItems(toy.texts(450)), toy.spec()
    done = toy.extracted(spec, items, machine("a"))
    again = machine("b")
    assert equal(toy.extracted(spec, items, again), done)
    assert list(again.folder.glob("*/*/index/*.idx"))
    assert equal(toy.extracted(spec, items, machine("b")), done)


# -- a cache that is smaller than the store --------------------------------------------------------


@pytest.mark.parametrize("view", ["pooled", "tokens"])
def test_shards_go_through_a_small_cache_by_windows(toy, machine, monkeypatch, view):
    items, spec = toy.ToyItems(toy.texts(900)), toy.spec()
    done = toy.extracted(spec, items, machine("a"), view=view)
    sizes = [p.stat().st_size for p in machine("a").folder.glob(f"*/*/*{SHARDS}")]
    count = len(sizes)
    bound = 5 * max(sizes) // 2
    assert bound < sum(sizes)
    store, held = machine("b", cache_bytes=bound), []
    real = store.cache.make_room

    def make_room(needed, keep):
        real(needed, keep)
        held.append(needed + sum(p.stat().st_size for p in store.folder.glob(f"*/*/*{SHARDS}")))

    store.cache.make_room = make_room
    reads = counted_reads(monkeypatch)
    found = toy.extracted(spec, items, store, view=view)
    assert len(reads) == count, "to open it, heads are read and no more"
    assert [w for w in found.warnings if "don't fit into the" in w]
    assert equal(found, done)
    assert len(reads) == 2 * count, "in one pass each shard is fetched once"
    assert held and max(held) <= bound
    assert equal(found, done, [880, 3, 4, 500])


def test_two_tables_share_the_bound_and_one_that_is_gone_leaves_its_room(toy, machine):
    spec, parts = toy.spec(), [toy.ToyItems(toy.texts(300, start=k)) for k in (0, 300)]
    done = [toy.extracted(spec, items, machine("a")) for items in parts]
    sizes = [p.stat().st_size for p in machine("a").folder.glob(f"*/*/*{SHARDS}")]
    bound = sum(sizes) * 5 // 6

    def held():
        return sum(p.stat().st_size for p in machine("b").folder.glob(f"*/*/*{SHARDS}"))

    first = toy.extracted(spec, parts[0], machine("b", cache_bytes=bound))
    assert not first.warnings
    second = toy.extracted(spec, parts[1], machine("b", cache_bytes=bound))
    assert any("don't fit" in w for w in second.warnings), "the first has mapped its half"
    assert equal(first, done[0]) and equal(second, done[1]) and held() <= bound
    del first
    again = toy.extracted(spec, parts[1], machine("b", cache_bytes=bound))
    assert not again.warnings and equal(again, done[1]) and held() <= bound


def test_what_another_process_deleted_from_the_cache_is_fetched_again(toy, machine):
    items, spec = toy.ToyItems(toy.texts(300)), toy.spec()
    done = toy.extracted(spec, items, machine("a"))
    size = max(p.stat().st_size for p in machine("a").folder.glob(f"*/*/*{SHARDS}"))
    store = machine("b", cache_bytes=size + 1)
    found = toy.extracted(spec, items, store)
    for _ in range(2):
        for path in store.folder.glob(f"*/*/*{SHARDS}"):
            path.unlink()
        assert equal(found, done)


# -- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [3, 700, -3, None, "empty"])
def test_a_flipped_byte_is_found_on_arrival_and_its_shard_is_made_again(
    toy, machine, url, server, at
):
    items, spec = toy.ToyItems(toy.texts(250)), toy.spec()
    done = toy.extracted(spec, items, machine("a"))
    before = server.objects(url, SHARDS)
    name, data = next(iter(before.items()))
    damaged = bytearray(data)
    if at in (None, "empty"):
        del damaged[-100 if at is None else 0 :]
    else:
        damaged[at] ^= 4
    server.put(url, name, bytes(damaged))
    found = toy.extracted(spec, items, machine("b"))
    assert 50 <= found.encoded <= 100 and equal(found, done)
    assert any(f"{url}/{name}" in w and "must be encoded again" in w for w in found.warnings)
    assert server.objects(url, ".bad") == {f"{name}.bad": bytes(damaged)}
    assert server.objects(url, SHARDS) == before and machine("c").verify() == []
    # The machine that has a sound copy goes on with it.
    assert toy.extracted(spec, items, machine("a")).encoded == 0


def flip(path, at=-3):
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.unlink()  # tables that are open have a map of it
    path.write_bytes(data)


def test_a_byte_that_flips_in_the_cache_is_fetched_again(toy, machine):
    items, spec = toy.ToyItems(toy.texts(250)), toy.spec()
    done = toy.extracted(spec, items, machine("a"), view="tokens")
    flip(next(machine("a").folder.glob(f"*/*/*{SHARDS}")))
    found = toy.extracted(spec, items, machine("a"), view="tokens")
    assert found.encoded == 0 and equal(found, done)


def test_a_damaged_head_is_found_before_its_lengths_are_believed(toy, machine):
    items, spec = toy.ToyItems(toy.texts(250)), toy.spec()
    done = toy.extracted(spec, items, machine("a"), view="tokens")
    toy.extracted(spec, items, machine("b"), view="tokens")
    for name in "ab":
        head = next(machine(name).folder.glob(f"*/*/heads/*{SHARDS}"))
        lengths = np.frombuffer(head.read_bytes(), "<i8", 2, len(head.read_bytes()) - 16)
        data = bytearray(head.read_bytes())
        data[-16:] = (lengths + [1, -1]).tobytes()  # their sum is the same
        head.write_bytes(data)
        if name == "b":
            for path in machine(name).folder.glob(f"*/*/*{SHARDS}"):
                path.unlink()
        with pytest.raises(ArtefactError, match="what it contains"):
            toy.extracted(spec, items, machine(name), view="tokens")
        found = toy.extracted(spec, items, machine(name), view="tokens")
        assert found.encoded == 0 and equal(found, done)


@pytest.mark.parametrize("kept", [-1, 5])
def test_verify_names_damaged_objects_and_prune_deletes_them(toy, machine, url, server, kept):
    items, spec = toy.ToyItems(toy.texts(250)), toy.spec()
    toy.extracted(spec, items, machine("a"))
    before = server.objects(url, SHARDS)
    name = next(iter(before))
    store = machine("b")
    (row,) = store.views()
    assert (row.encoder, row.view, row.items, row.dtype) == ("toy", "pooled", 250, "float16")
    server.put(url, name, before[name][:kept] + b"\0")
    for _ in range(2):
        assert [bad.path for bad in store.verify()] == [f"{url}/{name}"]
    assert store.prune().files == 1
    assert server.objects(url, SHARDS).keys() == before.keys() - {name}
    assert store.prune(older_than=1).files == 0
    assert store.prune(fingerprint="no such").files == 0
    assert store.prune(fingerprint=row.fingerprint[:6]).files == 2
    assert store.views() == [] and not server.objects(url, SHARDS)


# -- interruptions ---------------------------------------------------------------------------------


def test_what_could_not_be_put_is_put_by_the_next_run_without_encoding(toy, machine, monkeypatch):
    items, spec = toy.ToyItems(toy.texts(250)), toy.spec()
    real, puts = Bucket.put, []

    def put(self, name, content):
        puts.append(name)
        if len(puts) > 2:  # the mark, a shard
            raise ArtefactError("The object store can't be reached.")
        real(self, name, content)

    monkeypatch.setattr(Bucket, "put", put)
    with pytest.raises(ArtefactError, match="can't be reached"):
        toy.extracted(spec, items, machine("a"))
    monkeypatch.setattr(Bucket, "put", real)
    done = toy.extracted(spec, items, machine("a"))
    assert done.cached == 200 and done.encoded == 50
    assert not list(machine("a").folder.rglob("pending/*"))
    assert toy.extracted(spec, items, machine("b")).encoded == 0


def test_the_default_store_is_that_of_the_environment(url, monkeypatch, tmp_path):
    assert type(store_at()) is LatentStore
    monkeypatch.setenv("FUSEMIX_STORE", url)
    assert store_at().place == url
    assert store_at(f"{url}/other/").place == f"{url}/other"
    monkeypatch.setenv("FUSEMIX_STORE_CACHE_GB", "0.5")
    assert store_at().cache.bound == 500_000_000


def test_bytes_that_are_written_are_found_by_their_keys(machine, toy):
    """Without an encoder: `write` and `open`, float32."""
    keys = np.arange(40, dtype=np.uint64).reshape(20, 2)
    latents = np.arange(60, dtype=np.float32).reshape(20, 3)
    machine("a").write("ab", "pooled", keys, latents, spec=toy.spec(), store_dtype="float32")
    table = machine("b").open("ab", "pooled", keys[::-1], "float32")
    assert np.array_equal(table.rows(torch.arange(20)).numpy(), latents[::-1])
    with pytest.raises(ArtefactError, match=r"1 of 1 latents .* are not in s3://"):
        machine("b").open("ab", "pooled", keys[:1] + np.uint64(7), "float32")
