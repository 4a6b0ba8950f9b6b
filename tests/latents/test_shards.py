import errno
import os

import numpy as np
import pytest
import safetensors.numpy

from fusemix_core.disk import is_stray
from fusemix_core.errors import ArtefactError
from fusemix_core.latents import shards
from fusemix_core.latents.shards import (
    BadShardError,
    read_shard,
    shard_id,
    verify_shard,
    write_shard,
)

RNG = np.random.default_rng(0)


def make(folder, n=5, shape=(3,), dtype="float16", metadata=None, lengths=None):
    keys = RNG.integers(0, 2**64, (n, 2), np.uint64)
    latents = RNG.standard_normal((sum(lengths or [n]), *shape)).astype(dtype)
    lengths = None if lengths is None else np.array(lengths)
    shard = write_shard(folder, keys, latents, metadata or {"encoder": "toy"}, lengths)
    return shard, keys, latents


def intact(path):
    """Whether reading the file finds nothing wrong."""
    try:
        verify_shard(read_shard(path))
    except BadShardError as error:
        assert path.name in error.message
        return False
    return True


@pytest.mark.parametrize("shape", [(3,), (2, 5), (4, 3, 2)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_any_safetensors_reader_opens_a_shard(tmp_path, shape, dtype):
    shard, keys, latents = make(tmp_path / "a" / "b", shape=shape, dtype=dtype)
    tensors = safetensors.numpy.load_file(shard.path)
    np.testing.assert_array_equal(tensors["keys"], keys)
    np.testing.assert_array_equal(tensors["latents"], latents)
    assert tensors["latents"].dtype == dtype
    with safetensors.safe_open(shard.path, "np") as file:
        assert file.metadata()["encoder"] == "toy"

    read = read_shard(shard.path)
    assert (read.shape, read.dtype, read.offset, read.size) == (
        shape, dtype, shard.offset, os.path.getsize(shard.path),
    )  # fmt: skip
    np.testing.assert_array_equal(read.keys, keys)
    assert read.metadata == shard.metadata
    assert not read.verified
    verify_shard(read)
    assert read.verified


def test_a_shard_of_unequal_lengths_holds_them(tmp_path):
    lengths = [2, 1, 4, 1, 3]
    shard, keys, latents = make(tmp_path, lengths=lengths)
    tensors = safetensors.numpy.load_file(shard.path)
    np.testing.assert_array_equal(tensors["lengths"], lengths)
    np.testing.assert_array_equal(tensors["latents"], latents)
    read = read_shard(shard.path)
    assert (len(read), read.shape, read.offset, read.size) == (5, (3,), shard.offset, shard.size)
    np.testing.assert_array_equal(read.keys, keys)
    np.testing.assert_array_equal(read.lengths, lengths)
    assert read.head == shard.head == shard.offset - 24 * 5
    verify_shard(read)


@pytest.mark.parametrize("lengths", [[2, 1, 4, 1, 4], [2, 0, 5, 1, 3], [2, -1, 6, 1, 3]])
def test_lengths_that_do_not_fit_are_a_bad_shard(tmp_path, lengths):
    shard, _, _ = make(tmp_path, lengths=[2, 1, 4, 1, 3])
    data = bytearray(shard.path.read_bytes())
    data[shard.offset - 40 : shard.offset] = np.array(lengths, "<i8").tobytes()
    shard.path.write_bytes(data)
    with pytest.raises(BadShardError, match="lengths"):
        read_shard(shard.path)


def test_same_items_same_bytes(tmp_path):
    keys = RNG.integers(0, 2**64, (4, 2), np.uint64)
    latents = np.ones((4, 2), np.float32)
    one = write_shard(tmp_path / "1", keys, latents, {"a": "x", "b": "y"})
    two = write_shard(tmp_path / "2", keys, latents, {"b": "y", "a": "x"})
    assert one.path.name == two.path.name
    assert one.path.read_bytes() == two.path.read_bytes()


def test_the_name_tells_items_order_and_dtype():
    keys = RNG.integers(0, 2**64, (4, 2), np.uint64)
    names = {shard_id(keys, "float16"), shard_id(keys, "float32"), shard_id(keys[::-1], "float16")}
    assert len(names) == 3


@pytest.mark.parametrize("lengths", [None, [2, 1, 4, 1, 3]])
def test_a_flipped_bit_anywhere_is_caught(tmp_path, lengths):
    shard, _, _ = make(tmp_path, lengths=lengths)
    sound = shard.path.read_bytes()
    for at in range(len(sound)):
        damaged = bytearray(sound)
        damaged[at] ^= 1 << (at % 8)
        shard.path.write_bytes(damaged)
        assert not intact(shard.path), f"byte {at}"
    shard.path.write_bytes(sound)
    assert intact(shard.path)


@pytest.mark.parametrize("lengths", [None, [2, 1, 4, 1, 3]])
def test_truncation_and_excess_are_caught_by_the_header(tmp_path, lengths):
    shard, _, _ = make(tmp_path, lengths=lengths)
    sound = shard.path.read_bytes()
    for length in range(len(sound)):
        shard.path.write_bytes(sound[:length])
        with pytest.raises(BadShardError):
            read_shard(shard.path)
    shard.path.write_bytes(sound + b"\0")
    with pytest.raises(BadShardError):
        read_shard(shard.path)


@pytest.mark.parametrize(
    "header",
    [b"[]", b"{}", b"null", b'{"keys":1}', b"[" * 100_000, b"\xff\xfe", b'{"__metadata__":{},'
     b'"keys":{"dtype":"U64","shape":[1.0,2],"data_offsets":[0,16]},'
     b'"latents":{"dtype":"F16","shape":[1.0,1],"data_offsets":[16,18]}}'],
)  # fmt: skip
def test_strange_headers_are_bad_shards(tmp_path, header):
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 18)
    with pytest.raises(BadShardError):
        read_shard(path)


def test_disk_full_leaves_nothing_and_says_what_to_do(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards.os, "fsync", full)
    (tmp_path / "view").mkdir()
    with pytest.raises(ArtefactError, match="No space left") as caught:
        make(tmp_path / "view")
    assert "fusemix cache prune" in caught.value.hint and "FUSEMIX_HOME" in caught.value.hint
    assert list((tmp_path / "view").iterdir()) == []


def test_a_home_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="can't be written") as caught:
        make(tmp_path / "file" / "view")
    assert "FUSEMIX_HOME" in caught.value.hint


def test_a_temporary_taken_for_a_stray_is_written_again(tmp_path, monkeypatch):
    replace, seen = os.replace, []

    def removed_once(source, target):
        seen.append(source)
        if len(seen) == 1:
            os.unlink(source)
        replace(source, target)

    monkeypatch.setattr(shards.os, "replace", removed_once)
    shard, _, _ = make(tmp_path)
    assert intact(shard.path) and len(seen) == 2


def test_only_a_temporary_without_a_writer_is_stray(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / ".x.tmp"
    with open(path, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not is_stray(path)
    assert is_stray(path)
