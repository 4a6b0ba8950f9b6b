"""Batches come in an order of seed and epoch alone, whoever makes them and wherever they begin."""

from __future__ import annotations

import threading
from itertools import islice

import numpy as np
import pytest
import torch

from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.config import Training
from fusemix_core.engine import checkpoint
from fusemix_core.engine import feed as feed_module
from fusemix_core.engine.feed import Blocks, ahead, feed, sweep
from fusemix_core.engine.plan import epoch_order, plan_steps
from fusemix_core.interfaces import Callback, FitContext, PairedLatents, ResidentLatents
from fusemix_core.latents.store import LatentStore
from fusemix_core.specs import EncoderSpec

CPU = torch.device("cpu")


class OnDisk:
    """A table of somebody else's: rows by number, nothing more. Counts what it is asked for."""

    def __init__(self, latents, fails_at=None):
        self.latents, self.fails_at, self.asked = latents, fails_at, []

    dim = property(lambda self: self.latents.shape[1])

    def __len__(self):
        return len(self.latents)

    def rows(self, index):
        if self.fails_at is not None and bool((index == self.fails_at).any()):
            raise OSError("the disk is gone")
        self.asked.append(index)
        return self.latents[index]


def stored(data, tmp_path):
    """The same pairs, their latents in a latent store."""
    tables = {}
    for modality, table in data.tables.items():
        keys = np.stack([np.arange(len(table)), np.full(len(table), 7)], 1).astype(np.uint64)
        spec, store = (
            EncoderSpec(name=modality, modality="x", target="x:X", dim=1),
            LatentStore(tmp_path),
        )
        for part in np.array_split(np.arange(len(table)), 3):
            latents = table.latents.numpy()[part]
            store.write(modality, "pooled", keys[part], latents, spec=spec, store_dtype="float32")
        tables[modality] = store.open(modality, "pooled", keys, "float32")
    return PairedLatents(tables, data.links)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """Windows of four steps, blocks of three rows of 30 numbers."""
    monkeypatch.setattr(feed_module, "WINDOW_BYTES", 0)
    monkeypatch.setattr(feed_module, "BLOCK_BYTES", 2 * 3 * 30)


def plan_of(rows, epochs=3):
    return plan_steps(rows, 2, Training(epochs=epochs, batch_size=4))


def batches(data, blocks=True, **place):
    return list(feed(data, plan_of(len(data)), 0, CPU, blocks=blocks, **place))


def same(a, b):
    return len(a) == len(b) and all(
        torch.equal(x.links, y.links)
        and all(torch.equal(x.latents[m], y.latents[m]) for m in x.latents)
        for x, y in zip(a, b, strict=True)
    )


# -- order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 32, 100, 1001])
def test_an_epoch_by_blocks_has_each_row_once(count):
    order = Blocks(torch.arange(count), 3, 32)
    first = order.order(0, 0)
    assert sorted(first.tolist()) == list(range(count))
    assert torch.equal(first, order.order(0, 0))
    if count > 7:
        assert not torch.equal(first, order.order(0, 1))
        assert not torch.equal(first, order.order(1, 0))


def test_a_window_is_made_of_whole_blocks_and_mixes_them():
    order = Blocks(torch.arange(3000), 3, 300).order(0, 5)
    for window in order.split(300):
        runs = (window.sort().values.diff() != 1).sum() + 1
        assert 60 <= runs <= 102  # a hundred blocks, some of which lie side by side
        assert (window.diff().abs() <= 2).float().mean() < 0.1


def test_blocks_follow_the_widest_modality():
    links = torch.stack([torch.arange(60).flip(0), torch.randperm(60)], 1)
    tables = {"a": ResidentLatents(torch.zeros(60, 20)), "b": ResidentLatents(torch.zeros(60, 10))}
    found = Blocks.of(PairedLatents(tables, links), 8)
    assert found.rows.tolist() == list(range(59, -1, -1))
    assert (found.block, found.window) == (3, 32)


@pytest.mark.parametrize("blocks", [True, False])
def test_the_captions_of_an_image_come_in_one_batch(blocks):
    images = torch.arange(40).repeat(2)[torch.randperm(80)]
    links = torch.stack([images, torch.arange(80)], 1)
    links[0, 0] = links[1, 0] = -1
    tables = {"a": ResidentLatents(torch.zeros(40, 20)), "b": ResidentLatents(torch.zeros(80, 10))}
    training = Training(epochs=2, batch_size=80, together="a")
    data = PairedLatents(tables, links)
    plan = plan_steps(80, 1, training)
    for batch in feed(data, plan, 0, CPU, blocks=blocks):
        found = batch.links[:, 0, 0]
        assert sorted(batch.links[:, 0, 1].tolist()) == list(range(80))
        assert len(found.unique_consecutive()) == len(found[found >= 0].unique()) + int(
            (found < 0).unique_consecutive().sum()
        )
        assert (found[:-1] > found[1:]).any()  # in no order of their own


def test_without_blocks_the_order_is_the_full_shuffle(split):
    data = split(70, 4)[0]
    for i, batch in enumerate(batches(data, blocks=False)):
        epoch, index = divmod(i, 8)
        rows = epoch_order(70, 0, epoch)[index * 8 : index * 8 + 8]
        assert torch.equal(batch.links[:, 0], data.links[rows])


# -- the same batches, however made --------------------------------------------------------------


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_batches_from_disk_are_those_from_memory(blocks, missing, split, tmp_path):
    data = split(70, 4, widths=(12, 9, 9), missing=missing)[0]
    want = batches(data, blocks)
    assert len(want) == 24 and bool((want[0].links < 0).any()) == bool(missing)
    assert same(want, batches(stored(data, tmp_path), blocks))
    theirs = {m: OnDisk(t.latents) for m, t in data.tables.items()}
    assert same(want, batches(PairedLatents(theirs, data.links), blocks))


def test_a_window_without_a_modality_is_read_from_disk_like_any_other(split, tmp_path):
    """Rows that lack the modality that rows are sorted by come first, and together."""
    data = split(70, 4, widths=(12, 9, 9))[0]
    data.links[::3, 0] = -1
    want = list(sweep(data, 8, CPU))
    assert bool((want[0].links[:, 0, 0] < 0).all())
    assert same(want, list(sweep(stored(data, tmp_path), 8, CPU)))


@pytest.mark.parametrize("place", [(0, 1), (1, 0), (1, 5), (2, 7)])
def test_a_feed_that_begins_later_goes_on_alike(place, split, tmp_path):
    data = stored(split(70, 4)[0], tmp_path)
    epoch, index = place
    want = batches(data)[epoch * 8 + index :]
    assert same(want, batches(data, epoch=epoch, index=index))


def test_each_item_is_read_once_an_epoch(split):
    data = split(64, 4)[0]
    table = OnDisk(data.tables["m0"].latents)
    data = PairedLatents({"m0": table, "m1": data.tables["m1"]}, data.links)
    list(feed(data, plan_of(64, epochs=1), 0, CPU, blocks=True))
    assert len(table.asked) == 2 and all(len(ids) == 32 for ids in table.asked)
    assert sorted(torch.cat(table.asked).tolist()) == list(range(64))
    assert all(torch.equal(ids, ids.sort().values) for ids in table.asked)


def test_items_made_ahead_are_the_same():
    for count in (5, 0):
        squares = (i * i for i in range(count))
        assert list(ahead(squares, squares)) == [0, 1, 4, 9, 16][:count]


# -- what goes wrong -----------------------------------------------------------------------------


def threads_of_feeds():
    return [t for t in threading.enumerate() if t.name.startswith("fusemix-feed")]


@pytest.mark.parametrize("blocks", [True, False])
def test_an_error_in_the_thread_reaches_the_caller_and_leaves_none(blocks, split):
    data = split(70, 4)[0]
    table = OnDisk(data.tables["m0"].latents, fails_at=5)
    data = PairedLatents({"m0": table, "m1": data.tables["m1"]}, data.links)
    with pytest.raises(OSError, match="the disk is gone"):
        batches(data, blocks)
    assert not threads_of_feeds()


def test_a_feed_that_is_closed_early_leaves_no_thread(split):
    data = split(70, 4)[0]
    data = PairedLatents({m: OnDisk(t.latents) for m, t in data.tables.items()}, data.links)
    made = feed(data, plan_of(70), 0, CPU, blocks=True)
    assert len(list(islice(made, 3))) == 3
    assert threads_of_feeds()
    made.close()
    assert not threads_of_feeds()


# -- a fit ---------------------------------------------------------------------------------------


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_step(self, step, metrics):
        if step == self.step:
            raise KeyboardInterrupt


def fit(recipe, data, folder, resume=False, callbacks=()):
    context = FitContext(seed=3, checkpoints=folder, resume=resume, callbacks=callbacks)
    adapters = GradientAligner().fit(*data, recipe, context)
    return [p for a in adapters.values() for p in a.state_dict().values()]


@pytest.mark.parametrize("memory", ["same", "more"])
@pytest.mark.parametrize("step", [6, 8])
def test_a_fit_from_disk_is_resumed_exactly(step, memory, split, recipe, tmp_path):
    """Also where the tables, by then, fit in memory."""
    held = split(70, 24, missing=0.3)
    data = tuple(stored(d, tmp_path / "home") for d in held)
    settings = recipe(batch_size=4)
    want = fit(settings, data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(settings, data, tmp_path / "parts", callbacks=[StopAt(step)])
    assert not threads_of_feeds()
    assert checkpoint.latest(tmp_path / "parts").values["blocks"] is True
    got = fit(settings, data if memory == "same" else held, tmp_path / "parts", resume=True)
    assert all(torch.equal(x, y) for x, y in zip(want, got, strict=True))


def test_a_resident_fit_that_is_resumed_from_disk_keeps_its_full_shuffle(split, recipe, tmp_path):
    held, settings = split(70, 24), recipe(batch_size=4)
    want = fit(settings, held, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(settings, held, tmp_path / "parts", callbacks=[StopAt(6)])
    data = tuple(stored(d, tmp_path / "home") for d in held)
    got = fit(settings, data, tmp_path / "parts", resume=True)
    assert all(torch.equal(x, y) for x, y in zip(want, got, strict=True))
