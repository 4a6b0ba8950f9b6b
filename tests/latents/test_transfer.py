"""Batches to a GPU and latents back: two on their way through each encoder."""

import threading

import pytest
import torch

from fusemix_core.interfaces import Padded
from fusemix_core.latents import encoding, extraction
from fusemix_core.latents.store import LatentStore
from fusemix_core.latents.transfer import Transfer, over

CPU = torch.device("cpu")


def test_every_tensor_of_a_batch_is_replaced_and_nothing_else():
    batch = [(torch.ones(2), {"ids": torch.ones(3), "name": "a"}), ["text", 5, None]]
    found = over(batch, lambda x: x + 1)
    assert torch.equal(found[0][0], torch.full((2,), 2.0))
    assert torch.equal(found[0][1]["ids"], torch.full((3,), 2.0))
    assert found[0][1]["name"] == "a" and found[1] == ["text", 5, None]
    assert isinstance(found[0], tuple) and torch.equal(batch[0][0], torch.ones(2))


def test_on_a_cpu_nothing_is_copied():
    batch, latents = {"x": torch.ones(2)}, torch.ones(2, 3)
    transfer = Transfer(CPU)
    assert transfer.sent(batch) is batch
    assert transfer.fetched(latents) is None
    assert transfer.fetched(Padded(latents[..., None], latents.bool())) is None
    assert transfer.fetched("no latents") is None


class AsOnAGpu(Transfer):
    """Latents are fetched after the lock of the encoder is let go, as from a GPU."""

    fetching = []

    def fetched(self, latents):
        parts = [latents.values, latents.mask] if isinstance(latents, Padded) else [latents]
        copies = [x.clone() for x in parts]

        def wait():
            self.fetching.append(threading.get_ident())
            return Padded(*copies) if isinstance(latents, Padded) else copies[0]

        return wait


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(encoding, "Transfer", AsOnAGpu)
    monkeypatch.setattr(encoding, "in_flight", lambda device: 2)
    monkeypatch.setattr(AsOnAGpu, "fetching", [])


def files(store):
    return {p.relative_to(store.folder): p.read_bytes() for p in store.folder.rglob("*.*")}


@pytest.mark.parametrize("view", ["pooled", "tokens"])
def test_latents_that_are_fetched_later_leave_the_same_files(toy, tmp_path, monkeypatch, view):
    monkeypatch.setattr(extraction, "shard_size", lambda items: 50)
    values = toy.texts(180)
    values[70] = toy.damaged(70)
    items, plain, later = toy.ToyItems(values), LatentStore(tmp_path / "a"), LatentStore(tmp_path)
    toy.extracted(toy.spec(), items, plain, view=view, batch_size=8)
    with monkeypatch.context() as patched:
        patched.setattr(AsOnAGpu, "fetching", fetching := [])
        patched.setattr(encoding, "Transfer", AsOnAGpu)
        patched.setattr(encoding, "in_flight", lambda device: 2)
        done = toy.extracted(toy.spec(), items, later, view=view, batch_size=8)
    assert (done.encoded, list(done.bad)) == (179, [70])
    assert files(later) == files(plain)
    assert len(set(fetching)) == 2  # two threads: one batch computes, one is fetched


def test_one_batch_at_a_time_is_in_the_encoder(toy, tmp_path, as_on_a_gpu, monkeypatch):
    inside, most = [], []
    encode = toy.ToyEncoder.encode

    def watched(self, batch, view="pooled"):
        inside.append(1)
        most.append(len(inside))
        try:
            return encode(self, batch, view)
        finally:
            inside.pop()

    monkeypatch.setattr(toy.ToyEncoder, "encode", watched)
    spec = toy.spec(options={"delay": 0.002})
    toy.extracted(spec, toy.ToyItems(toy.texts(60)), LatentStore(tmp_path), batch_size=4)
    assert max(most) == 1 and len(AsOnAGpu.fetching) == 15


def test_memory_that_runs_out_halves_what_is_in_flight(toy, tmp_path, as_on_a_gpu):
    spec, values = toy.spec(options={"at_once": 5}), toy.texts(90)
    done = toy.extracted(spec, toy.ToyItems(values), LatentStore(tmp_path), batch_size=32)
    assert max(map(len, toy.ToyEncoder.batches)) == 4 and done.encoded == 90
    assert done.warnings == ["Batches of toy were cut to 4 to fit in memory."]


def test_a_fault_ends_the_run(toy, tmp_path, as_on_a_gpu, monkeypatch):
    monkeypatch.setattr(toy.ToyEncoder, "encode", lambda *a: (_ for _ in ()).throw(KeyError("x")))
    with pytest.raises(KeyError, match="x"):
        toy.extracted(toy.spec(), toy.ToyItems(toy.texts(40)), LatentStore(tmp_path), batch_size=4)
