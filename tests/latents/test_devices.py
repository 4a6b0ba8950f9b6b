"""Several devices fill the store as one would; batches under a budget of length."""

import threading

import pytest
import torch

from fusemix_core import devices
from fusemix_core.devices import devices_like, out_of_memory
from fusemix_core.latents import extraction, holding
from fusemix_core.latents.batches import batch_size_for
from fusemix_core.latents.cutting import BatchSize
from fusemix_core.latents.store import LatentStore


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(extraction, "shard_size", lambda items: 50)


def files(store):
    return {p.relative_to(store.folder): p.read_bytes() for p in store.folder.rglob("*.*")}


def on_devices(toy, monkeypatch):
    """A spec whose encoders note who encodes what; the first batches wait for each other."""
    together = threading.Barrier(2, timeout=20)

    class OnDevice(toy.ToyEncoder):
        encoded = []

        def encode(self, batch, view="pooled"):
            if not any(who == id(self) for who, _ in self.encoded):
                self.encoded.append((id(self), len(batch[0])))
                together.wait()  # passes only if two encoders work at once
            else:
                self.encoded.append((id(self), len(batch[0])))
            return super().encode(batch, view)

    monkeypatch.setattr(toy, "OnDevice", OnDevice, raising=False)
    OnDevice.__module__, OnDevice.__qualname__ = toy.__name__, "OnDevice"
    return OnDevice, toy.spec(OnDevice)


@pytest.mark.parametrize("view", ["pooled", "tokens"])
def test_two_devices_leave_the_files_of_one(toy, tmp_path, small_shards, monkeypatch, view):
    cls, spec = on_devices(toy, monkeypatch)
    values = toy.texts(230)
    values[70] = toy.damaged(70)
    items, seen = toy.ToyItems(values), []
    two = LatentStore(tmp_path / "two")
    done = toy.extracted(
        spec, items, two, view=view, device=["cpu", "cpu"], batch_size=8,
        progress=lambda *a: seen.append(a),
    )  # fmt: skip
    assert len({who for who, _ in cls.encoded}) == 2 == cls.loads
    assert (done.encoded, list(done.bad)) == (229, [70])
    assert seen == sorted(seen) and seen[-1] == (230, 230)

    one = LatentStore(tmp_path / "one")
    plain = toy.spec(target=spec.target)
    monkeypatch.setattr(cls, "encode", toy.ToyEncoder.encode)
    toy.extracted(plain, items, one, view=view, batch_size=8)
    assert files(one) == files(two)


def test_a_fault_on_one_device_ends_the_run(toy, store, monkeypatch):
    class Failing(toy.ToyEncoder):
        def encode(self, batch, view="pooled"):
            raise KeyError("broken")

    monkeypatch.setattr(toy, "Failing", Failing, raising=False)
    Failing.__module__, Failing.__qualname__ = toy.__name__, "Failing"
    with pytest.raises(KeyError, match="broken"):
        toy.extracted(
            toy.spec(Failing), toy.ToyItems(toy.texts(99)), store, device=["cpu"] * 3, batch_size=4
        )


def test_few_items_take_no_more_devices_than_batches(toy, store):
    toy.extracted(toy.spec(), toy.ToyItems(toy.texts(9)), store, device=["cpu"] * 4, batch_size=8)
    assert toy.ToyEncoder.loads == 2


def test_a_kind_of_device_stands_for_all_and_a_number_for_one(monkeypatch):
    monkeypatch.setattr(devices.torch.accelerator, "device_count", lambda: 2)
    cuda = [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert devices_like(torch.device("cuda")) == cuda
    assert devices_like(torch.device("cuda:1")) == cuda[1:]
    assert devices_like(torch.device("cpu")) == [torch.device("cpu")]


# -- batches under a budget ----------------------------------------------------------------------


def sizes(size, lengths):
    return [len(lengths[part]) for part in size.cut(lengths)]


def test_batches_are_cut_by_padded_length():
    lengths = [900, 300, 250, 100, 100, 100, 10, *[5] * 20]
    assert sizes(BatchSize(4), lengths) == [4] * 6 + [3]
    assert sizes(BatchSize(4, 600, stretch=True), lengths) == [1, 2, 6, 18]
    assert sizes(BatchSize(4, 600), lengths) == [1, 2, 4, 4, 4, 4, 4, 4]
    assert sizes(BatchSize(4, 600), []) == []


def test_a_given_batch_size_is_exact_and_the_default_has_a_budget(toy):
    cpu = torch.device("cpu")
    assert batch_size_for(toy.spec(), 7, cpu) == BatchSize(7)
    assert batch_size_for(toy.spec(batch=9), None, cpu) == BatchSize(9)
    assert batch_size_for(toy.spec(), None, cpu) == BatchSize(64, 64 * 256, stretch=True)
    sound = toy.spec(modality="audio", sample_rate=8000)
    assert batch_size_for(sound, None, cpu) == BatchSize(16, 16 * 10 * 8000)
    assert batch_size_for(toy.spec(modality="image"), None, cpu) == BatchSize(32)


def test_texts_come_under_a_budget_of_tokens(toy, store):
    values = [*toy.texts(400), "a long text " * 3000]
    toy.extracted(toy.spec(max_tokens=500), toy.ToyItems(values), store)
    batches = toy.ToyEncoder.batches
    padded = [max(min(len(t), 2000) + 8 for t in b) * len(b) for b in batches]
    assert max(padded) <= 64 * 256 and len(batches) < 400 / 64 + 2
    assert max(map(len, batches)) > 64


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA failed with error out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_batches_are_halved_whoever_finds_no_room(toy, store, monkeypatch, error):
    class Narrow(toy.ToyEncoder):
        def encode(self, batch, view="pooled"):
            if len(batch[0]) > 2:
                raise error
            return super().encode(batch, view)

    monkeypatch.setattr(toy, "Narrow", Narrow, raising=False)
    Narrow.__module__, Narrow.__qualname__ = toy.__name__, "Narrow"
    done = toy.extracted(toy.spec(Narrow), toy.ToyItems(toy.texts(9)), store, batch_size=8)
    assert done.encoded == 9 and "were cut to 2" in done.warnings[0]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("out of memory"))


def test_an_encoder_encodes_with_its_device_as_the_threads_current_one(toy, store, monkeypatch):
    entered, inside = [], []

    class Current:
        """What torch.cuda.device is."""

        def __init__(self, device):
            self.device = device

        def __enter__(self):
            entered.append(self.device)
            inside.append(self.device)

        def __exit__(self, *error):
            inside.pop()

    class Seen(toy.ToyEncoder):
        where = []

        def encode(self, batch, view="pooled"):
            self.where.append(inside[-1])
            return super().encode(batch, view)

    monkeypatch.setattr(toy, "Seen", Seen, raising=False)
    Seen.__module__, Seen.__qualname__ = toy.__name__, "Seen"
    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr(holding, "empty_cache", lambda device: None)
    toy.extracted(
        toy.spec(Seen), toy.ToyItems(toy.texts(40)), store, device=["cuda:1"], batch_size=8
    )
    assert Seen.where == entered == [torch.device("cuda", 1)] * len(Seen.where) and Seen.where
