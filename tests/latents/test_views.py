"""Views other than pooled: more axes, unequal lengths, shards bounded in bytes."""

import numpy as np
import pytest
import torch

from fusemix_core.errors import ArtefactError, ConfigError, ContractError
from fusemix_core.interfaces import Padded
from fusemix_core.latents import extraction, filling
from fusemix_core.latents.batches import group_size
from fusemix_core.latents.precision import SAMPLE_VALUES, to_float16
from fusemix_core.latents.shards import read_shard
from fusemix_core.latents.store import LatentStore


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of four groups of 32 texts at most, or of 6,000 bytes: about two groups."""
    monkeypatch.setattr(extraction, "shard_size", lambda items: 128)
    monkeypatch.setattr(filling, "SHARD_BYTES", 6000)


def run(toy, items, store, view, spec=None, **options):
    options = {"batch_size": 8, "store_dtype": "float32"} | options
    return toy.extracted(spec or toy.spec(), items, store, view=view, **options)


def tokens_of(toy, values):
    """The latents of each item, encoded alone."""
    encoder = toy.ToyEncoder(toy.spec())
    return [encoder.encode(encoder.collate([v]), "tokens").values[0] for v in values]


def shard_paths(store):
    return sorted(store.folder.rglob("*.safetensors"))


def files(store):
    return {p.relative_to(store.folder): p.read_bytes() for p in store.folder.rglob("*.*")}


# -- one shape -----------------------------------------------------------------------------------


def test_a_view_of_more_axes_keeps_them(toy, store):
    items = toy.ToyItems(toy.texts(30))
    table = run(toy, items, store, "layers").table
    assert (table.shape, table.dim) == ((2, toy.DIM), 2 * toy.DIM)
    latents = table.rows(torch.arange(30))
    assert latents.shape == (30, 2, toy.DIM)
    assert torch.equal(latents[:, 0], -latents[:, 1])
    assert torch.equal(table.load().rows(torch.arange(30)), latents)
    # Views don't get in each other's way.
    assert run(toy, items, store, "pooled").encoded == 30
    assert [v.view for v in store.views()] == ["layers", "pooled"]


# -- unequal lengths -----------------------------------------------------------------------------


def test_items_of_unequal_length_keep_their_own_latents(toy, store, small_shards):
    values = toy.texts(150)
    values[40] = toy.damaged(40)
    done = run(toy, toy.ToyItems(values), store, "tokens")
    good = [i for i in range(150) if i != 40]
    expected = dict(zip(good, tokens_of(toy, [values[i] for i in good]), strict=True))
    table = done.table
    longest = int(table.lengths.max())
    assert len(table) == 150 and table.shape == (longest, toy.DIM) and list(done.bad) == [40]
    assert table.lengths.tolist() == [len(expected.get(i, ())) for i in range(150)]
    for index in ([], [3], [40], [149, 0, 0, 40, 77], list(range(150))):
        found = table.rows(torch.tensor(index, dtype=torch.int64))
        lengths = [len(expected.get(i, ())) for i in index]
        assert found.values.shape == (len(index), max([1, *lengths]), toy.DIM)
        assert found.values.dtype == torch.float32 and found.mask.sum(1).tolist() == lengths
        assert not found.values[~found.mask].any()
        for i, row, mask in zip(index, found.values, found.mask, strict=True):
            if i != 40:
                torch.testing.assert_close(row[mask], expected[i])
                assert mask[: len(expected[i])].all()


def test_what_is_stored_is_not_encoded_again(toy, store):
    values = toy.texts(60)
    first = run(toy, toy.ToyItems(values[10:50]), store, "tokens")
    toy.ToyEncoder.batches.clear()
    again = run(toy, toy.ToyItems(values), LatentStore(store.folder.parent), "tokens")
    assert (again.encoded, again.cached) == (20, 40)
    some = first.table.rows(torch.arange(40))
    same = again.table.rows(torch.arange(10, 50))
    assert torch.equal(some.values, same.values) and torch.equal(some.mask, same.mask)


def test_float16_is_taken_where_it_will_do(toy, store):
    items = toy.ToyItems(toy.texts(60))
    done = run(toy, items, store, "tokens", store_dtype="float16")
    assert done.table.dtype == torch.float16
    rows = done.table.rows(torch.arange(60)).values
    exact = run(toy, items, LatentStore(store.folder / "other"), "tokens").table
    torch.testing.assert_close(rows, exact.rows(torch.arange(60)).values, rtol=1e-3, atol=1e-3)


def test_the_store_tells_a_damaged_shard_and_lists_the_view(toy, store, small_shards):
    items = toy.ToyItems(toy.texts(150))
    run(toy, items, store, "tokens")
    before = files(store)
    (row,) = store.views()
    assert (row.view, row.items, row.dtype) == ("tokens", 150, "float32")
    path = shard_paths(store)[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 128
    path.write_bytes(data)
    lost = len(read_shard(path))
    assert [b.path for b in store.verify()] == [path]
    done = run(toy, items, LatentStore(store.folder.parent), "tokens")
    assert done.encoded == lost
    assert store.prune().files == 1
    assert files(store) == before


def test_shards_of_unlike_form_are_refused(toy, store):
    items = toy.ToyItems(toy.texts(4))
    shape = {"spec": toy.spec(), "store_dtype": "float32"}
    store.write("ab", "tokens", items.keys[:2], np.ones((5, 8), np.float32), np.array([2, 3]),
                **shape)  # fmt: skip
    store.write("ab", "tokens", items.keys[2:], np.ones((2, 8), np.float32), **shape)
    with pytest.raises(ArtefactError, match=r"\[n, 8\], \[n, T, 8\]"):
        store.open("ab", "tokens", items.keys, "float32")


def test_the_shape_of_what_is_stored_can_be_asked_for(toy, store):
    items = toy.ToyItems(toy.texts(9))
    known = run(toy, items, store, "layers").fingerprint
    run(toy, items, store, "tokens")
    assert store.item_shape(known, "layers") == (2, toy.DIM)
    assert store.item_shape(known, "tokens") is None
    assert store.item_shape(known, "grid") is None


# -- where a fit needs rows ----------------------------------------------------------------------


def test_unequal_lengths_are_refused_at_the_first_batch(toy, store):
    items = toy.ToyItems(toy.texts(150))
    with pytest.raises(ConfigError, match="different length") as caught:
        run(toy, items, store, "tokens", ragged=False)
    assert "such as 'pooled'" in caught.value.hint and "layers" in caught.value.hint
    assert len(toy.ToyEncoder.batches) == 1 and shard_paths(store) == []
    run(toy, items, store, "tokens")
    with pytest.raises(ConfigError, match="different length"):
        run(toy, items, store, "tokens", ragged=False)
    assert run(toy, items, store, "layers", ragged=False).encoded == 150


# -- shards bounded in bytes ---------------------------------------------------------------------


def test_a_shard_ends_with_the_group_that_reaches_its_bytes(toy, store, small_shards):
    values = toy.texts(300)
    run(toy, toy.ToyItems(values), store, "tokens")
    shards = [read_shard(p) for p in shard_paths(store)]
    latents = [int(s.lengths.sum()) for s in shards]
    group = 32 * max(toy.length(v) for v in values)
    assert sorted(map(len, shards)) == [44, 64, 64, 64, 64]
    assert max(latents) * toy.DIM * 4 < 6000 + group * toy.DIM * 4


def test_a_shard_ends_by_its_items_where_these_are_small(toy, store, small_shards, monkeypatch):
    monkeypatch.setattr(filling, "SHARD_BYTES", 10**9)
    run(toy, toy.ToyItems(toy.texts(150)), store, "layers")
    assert sorted(len(read_shard(p)) for p in shard_paths(store)) == [22, 128]


def test_pooled_latents_are_grouped_by_the_shard(toy):
    assert group_size(toy.spec(), "pooled", 8, 1024) == 1024
    assert group_size(toy.spec(), "pooled-mean", 8, 1024) == 1024
    assert group_size(toy.spec(), "tokens", 8, 1024) == 32
    assert group_size(toy.spec(modality="image"), "grid", 8, 1024) == 8


@pytest.mark.parametrize("view", ["tokens", "layers"])
@pytest.mark.parametrize("at", [40, 130, 200])
def test_interrupted_and_resumed_is_never_interrupted(toy, store, tmp_path, small_shards, view, at):
    values = toy.texts(230)
    for i in (0, 7, 60, 119, 228):
        values[i] = toy.damaged(i)
    items = toy.ToyItems(values)
    whole = LatentStore(tmp_path / "whole")
    run(toy, items, whole, view)
    assert len(shard_paths(whole)) > 2

    def interrupt(done, total):
        if done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(toy, items, store, view, progress=interrupt)
    run(toy, items, store, view)
    assert files(store) == files(whole)


def test_rows_of_many_numbers_are_sampled_within_a_bound(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "fusemix_core.latents.precision.neighbours_kept",
        lambda exact, rounded: seen.append(exact.size) or 1.0,
    )
    to_float16(np.zeros((100, 1 << 20), np.float32))
    to_float16(np.zeros((300, 2, 4), np.float32))
    assert seen == [20 << 20, 256 * 8] and SAMPLE_VALUES == 1 << 24


# -- the contract --------------------------------------------------------------------------------


def returning(toy, change):
    """A toy whose tokens are changed before they are returned."""

    class Changed(toy.ToyEncoder):
        def encode(self, batch, view="pooled"):
            padded = super().encode(batch, "tokens")
            return change(padded.values, padded.mask)

    return Changed(toy.spec())


def emptied(values, mask):
    mask = mask.clone()
    mask[2] = False
    return Padded(values, mask)


def poisoned(where):
    def change(values, mask):
        values = values.clone()
        values[where(mask)] = torch.nan
        return Padded(values, mask)

    return change


@pytest.mark.parametrize(
    ("view", "change", "expected", "got"),
    [
        ("tokens", emptied, "one latent or more of each item", "'3 word"),
        ("tokens", lambda v, m: Padded(v, m.flip(1)), "padding after", "gaps"),
        ("tokens", lambda v, m: Padded(v, m.int()), "bool mask of shape [5, ", "torch.int32"),
        ("tokens", lambda v, m: Padded(v, m[:, 1:]), "bool mask of shape [5, ", "torch.bool"),
        ("tokens", lambda v, m: Padded(v[:-1], m[:-1]), "[5, T, d]", "shape [4, "),
        ("tokens", lambda v, m: Padded(v[..., 0], m), "[5, T, d]", "shape [5, "),
        ("tokens", lambda v, m: Padded(v.int(), m), "floating-point", "torch.int32"),
        ("tokens", lambda v, m: Padded(v.numpy(), m), "a Tensor", "ndarray"),
        ("tokens", lambda v, m: v[:, 0], "[5, T, d]", "shape [5, 8]"),
        ("tokens", poisoned(lambda m: m), "finite", "5 of 5 items"),
        ("grid", lambda v, m: v, "[5, H, W, d]", "shape [5, "),
        ("layers", lambda v, m: v[:, :0], "[5, L, d]", "shape [5, 0, 8]"),
        ("pooled", Padded, "a Tensor of latents of shape [5, 8]", "a Padded"),
    ],
)
def test_an_encoder_that_breaks_its_contract_is_named(toy, store, view, change, expected, got):
    items = toy.ToyItems(toy.texts(5))
    with pytest.raises(ContractError) as caught:
        run(toy, items, store, view, encoder=returning(toy, change))
    message = caught.value.message
    assert "Encoder 'toy'" in message and expected in message and got in message
    assert shard_paths(store) == []


def test_padding_may_hold_anything(toy, store):
    values = toy.texts(5)
    encoder = returning(toy, poisoned(lambda mask: ~mask))
    done = run(toy, toy.ToyItems(values), store, "tokens", encoder=encoder)
    found = done.table.rows(torch.arange(5))
    torch.testing.assert_close(found.values[found.mask], torch.cat(tokens_of(toy, values)))


def test_batches_must_agree_in_form(toy, store):
    turns = iter([lambda v, m: Padded(v, m), lambda v, m: v])
    encoder = returning(toy, lambda v, m: next(turns)(v, m))
    with pytest.raises(ContractError, match="as before"):
        run(toy, toy.ToyItems(toy.texts(16)), store, "tokens", encoder=encoder)


def test_a_view_that_is_not_the_first_has_a_width_of_its_own(toy, store):
    def both(values, mask):
        return torch.cat([values[:, 0], values[:, 0]], dim=1)

    encoder = returning(toy, both)
    done = run(toy, toy.ToyItems(toy.texts(5)), store, "pooled-cls-mean", encoder=encoder)
    assert done.table.dim == 2 * toy.DIM
