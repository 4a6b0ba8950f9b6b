"""Tables that a GPU has no room for: windows go there as stored, batches are gathered there."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from accelerator.emulated import CPU, CUDA
from accelerator.subjects import pairs
from torch.overrides import TorchFunctionMode

from fusemix_core.config import Training
from fusemix_core.engine import feed as feeds
from fusemix_core.engine import tables, windows
from fusemix_core.engine.feed import feed, sweep
from fusemix_core.engine.plan import plan_steps
from fusemix_core.engine.tables import on_device
from fusemix_core.latents.store import LatentStore
from fusemix_core.specs import EncoderSpec


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """Windows of four steps, and no room on the device for whole tables."""
    monkeypatch.setattr(feeds, "WINDOW_BYTES", 0)


def stored(data, folder):
    """The same pairs, their latents in a latent store, in float16."""
    found, store = {}, LatentStore(folder)
    for modality, table in data.tables.items():
        keys = np.stack([np.arange(len(table)), np.full(len(table), 7)], 1).astype(np.uint64)
        spec = EncoderSpec(name=modality, modality=modality, target="x:X", dim=1)
        latents = table.latents.numpy()
        store.write(modality, "pooled", keys, latents, spec=spec, store_dtype="float16")
        found[modality] = store.open(modality, "pooled", keys, "float16")
    return replace(data, tables=found)


def same(batch, wanted):
    assert torch.equal(batch.links.cpu(), wanted.links)
    assert torch.equal(batch.links_here(), wanted.links)
    for modality, x in wanted.latents.items():
        got = batch.latents[modality]
        assert got.device == CUDA and got.dtype == torch.float32
        values, mask = (got, None) if isinstance(x, torch.Tensor) else (got.filled(), got.mask)
        if mask is not None:
            assert torch.equal(mask.cpu(), x.mask)
            x = x.filled()
        assert torch.equal(values.cpu(), x)


WHERE = pytest.mark.parametrize("where", ["disk", "memory", "tokens", "theirs"])


class Theirs:
    """A table of somebody else's: rows by number, nothing more."""

    def __init__(self, table):
        self.table, self.shape, self.dim = table, table.shape, table.dim

    def __len__(self):
        return len(self.table)

    def rows(self, index):
        return self.table.rows(index)


def placed(where, folder):
    data = pairs(gaps=True, tokens=where == "tokens")
    if where == "tokens":
        data = data.with_tokens(data.modalities)
    if where == "disk":
        data = stored(data, folder)
    if where == "theirs":
        data = replace(data, tables={m: Theirs(t) for m, t in data.tables.items()})
    return data


@WHERE
@pytest.mark.parametrize("blocks", [True, False])
def test_streamed_batches_are_those_of_a_cpu(where, blocks, tmp_path, device):
    data = placed(where, tmp_path)
    plan = plan_steps(len(data), 1, Training(epochs=2, batch_size=8))
    batches = feed(data, plan, 0, CUDA, blocks=blocks, epoch=0, index=3)
    wanted = list(feed(data, plan, 0, CPU, blocks=blocks, epoch=0, index=3))
    assert len(wanted) == 15
    for batch, want in zip(batches, wanted, strict=True):
        same(batch, want)


@WHERE
def test_a_sweep_is_that_of_a_cpu(where, tmp_path, device):
    data = placed(where, tmp_path)
    for batch, want in zip(sweep(data, 10, CUDA), sweep(data, 10, CPU), strict=True):
        same(batch, want)


class Gathers(TorchFunctionMode):
    """Rows that are gathered from tensors on the CPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        gathers = getattr(func, "__name__", "") in ("index_select", "__getitem__", "gather")
        if gathers and not args[0].is_cuda and args[0].is_floating_point():
            self.found.append(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_a_streamed_step_gathers_nothing_on_the_cpu_and_waits_for_nothing(
    where, tmp_path, device, monkeypatch
):
    data = replace(placed(where, tmp_path), facts={})
    plan = plan_steps(len(data), 1, Training(epochs=1, batch_size=8))
    batches = feed(data, plan, 0, CUDA, blocks=True)
    next(batches)
    device.clear()
    with Gathers() as gathers:
        three = list(islice(batches, 3))  # the rest of the first window
    batches.close()
    assert len(three) == 3 and not gathers.found
    assert not device.waits


def test_windows_are_sent_in_the_type_they_are_stored_in(tmp_path, device):
    data = stored(pairs(gaps=True), tmp_path)
    loaded = windows.Loader(CUDA)(windows.Window(data, torch.arange(9), data.links[:9]))
    for table in loaded.latents.tables.values():
        assert table.latents.dtype == torch.float16 and table.latents.device == CUDA
        assert len(table) <= 9
    assert not device.waits
    with pytest.raises(RuntimeError, match="before it is ready"):
        loaded.latents.batch(torch.arange(9), CUDA)
    loaded.await_copies(CUDA)
    loaded.latents.batch(torch.arange(9), CUDA)


def test_tables_stay_float16_on_the_device(tmp_path, device, monkeypatch):
    data = stored(pairs(gaps=True), tmp_path)
    monkeypatch.setattr(tables, "VALUES", 100)  # several chunks
    needed = sum(len(t) * t.dim * 2 for t in data.tables.values())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * needed, 0))
    held, _ = on_device(data, data, CUDA)
    for modality, table in held.tables.items():
        assert table.latents.dtype == torch.float16 and table.latents.device == CUDA
        every = torch.arange(len(table))
        assert torch.equal(table.rows(every).cpu(), data.tables[modality].rows(every))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * needed - 1, 0))
    assert on_device(data, data, CUDA)[0] is data
