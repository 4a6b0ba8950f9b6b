"""Extraction on a GPU: batches arrive from pinned memory, and latents leave a batch later."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerator import streams
from accelerator.emulated import CUDA

from fusemix_core.encoders.pixels import PixelTable
from fusemix_core.latents.store import LatentStore
from fusemix_core.userfile import import_file

TOY = Path(__file__).parents[1] / "latents" / "toy.py"


@pytest.fixture
def toy():
    module = import_file(TOY)
    module.ToyEncoder.batches = []
    return module


@pytest.fixture
def there(toy, monkeypatch):
    """A toy encoder on the device, and the numbers of the batches that it has begun."""

    class There(toy.ToyEncoder):
        on_device = True
        begun = []

        @classmethod
        def load(cls, spec, device, dtype):
            encoder = super().load(spec, device, dtype)
            encoder.layer.to(device, dtype)
            return encoder

        def collate(self, items):
            return [str(item) for item in items], torch.stack([toy.features(i) for i in items])

        def encode(self, batch, view="pooled"):
            assert batch[1].device == CUDA
            self.begun.append(len(self.begun))
            return super().encode(batch, view)

    monkeypatch.setattr(toy, "There", There, raising=False)
    There.__module__, There.__qualname__ = toy.__name__, "There"
    return There


def files(store):
    return {p.relative_to(store.folder): p.read_bytes() for p in store.folder.rglob("*.*")}


def test_the_loop_waits_for_no_copy(toy, there, tmp_path, device):
    values = toy.texts(40)
    done = toy.extracted(
        toy.spec(there), toy.ToyItems(values), LatentStore(tmp_path), device=[CUDA], batch_size=8,
        dtype="float32",
    )  # fmt: skip
    assert done.encoded == 40 and len(there.begun) == 5
    loading = "fusemix_core/latents/holding.py::Held.get"
    assert {where for _, where in device.waits} == {loading}
    assert device.sent == (40 + 8) * 16 * 4 + 8 * 4  # a batch's features, the encoder's weights


def test_latents_are_fetched_while_the_next_batch_is_encoded(
    toy, there, tmp_path, device, monkeypatch
):
    begun, fetched = [], []

    class Patient(streams.Done):
        """Done only when the batch after its own has begun."""

        def record(self, stream):
            self.number = there.begun[-1]

        def synchronize(self):
            last = self.number == 4
            until = threading.Event()
            for _ in range(2000):
                if last or there.begun[-1] > self.number:
                    break
                until.wait(0.01)
            begun.append(there.begun[-1] > self.number or last)
            fetched.append(self.number)

    monkeypatch.setattr(torch.cuda, "Event", Patient)
    toy.extracted(
        toy.spec(there), toy.ToyItems(toy.texts(40)), LatentStore(tmp_path), device=[CUDA],
        batch_size=8, dtype="float32",
    )  # fmt: skip
    assert sorted(fetched) == [0, 1, 2, 3, 4] and all(begun)


# -- pixels ----------------------------------------------------------------------------------------


def scaled(x):
    """As most processors do: byte / 255, less the mean, divided by the deviation."""
    mean, deviation = torch.tensor([[0.485], [0.456], [0.406]]), torch.tensor([[0.229]] * 3)
    return ((x.float() / 255).flatten(1) - mean).div(deviation).view(x.shape)


def as_bytes(image):
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def test_bytes_are_normalised_on_the_device_to_the_same_numbers(device):
    table = PixelTable.of(lambda image: scaled(as_bytes(image)), as_bytes, CUDA)
    batch = torch.randint(0, 256, (5, 3, 20, 30), dtype=torch.uint8)
    device.clear()
    found = table(batch.pin_memory().to(CUDA, non_blocking=True))
    assert not device.waits and device.sent == batch.numel()
    assert torch.equal(found.cpu(), torch.stack([scaled(one) for one in batch]))


@pytest.mark.parametrize(
    "whole",
    [
        lambda x: scaled(x) + torch.linspace(0, 1, x.shape[-1]),  # by the place, too
        lambda x: scaled(x) - scaled(x).mean(),  # by the other pixels
        lambda x: scaled(x).double(),
        lambda x: scaled(x)[:, 1:],
        lambda x: {}["pixels"],
    ],
)
def test_a_processor_that_does_more_has_no_table(whole):
    assert PixelTable.of(lambda i: whole(as_bytes(i)), as_bytes, torch.device("cpu")) is None


def test_a_table_that_was_not_seen_whole_is_none():
    small = lambda image: as_bytes(image.resize((4, 4)))  # noqa: E731
    assert PixelTable.of(lambda i: scaled(small(i)), small, torch.device("cpu")) is None
