"""Extraction on a GPU: the latents of a CPU, memory that runs out, what stays behind."""

import numpy as np
import pytest
import torch
from latents.toy import ToyItems, texts

from fusemix_core.encoders.pixels import PixelTable
from fusemix_core.interfaces import Padded
from fusemix_core.latents.batches import batch_size_for
from fusemix_core.latents.encoding import Encoding, ItemEncoder
from fusemix_core.latents.extraction import extract
from fusemix_core.latents.store import LatentStore
from fusemix_core.latents.transfer import Transfer, pinned
from fusemix_core.registry import registry

pytestmark = pytest.mark.cuda


def tiny_text(device):
    """A miniature of a sentence-transformers model on the device."""
    spec = registry.encoder("bge-large")
    encoder = registry.target_of(spec).tiny(spec)
    encoder.device = device
    encoder.model.to(device)
    return encoder


def latents(encoder, items, device, home, view="pooled", **how):
    how = Encoding(device, store_dtype="float32", backend="eager", **how)
    done = extract(encoder.spec, items, LatentStore(home), how, encoder=encoder, view=view)
    rows = done.table.rows(torch.arange(len(items)))
    return rows.values if isinstance(rows, Padded) else rows, done


@pytest.mark.parametrize("view", ["pooled", "layers", "tokens"])
def test_latents_are_those_of_a_cpu(device, tmp_path, view):
    items, cpu = ToyItems(texts(90)), torch.device("cpu")
    there, _ = latents(tiny_text(device), items, device, tmp_path / "there", view)
    here, _ = latents(tiny_text(cpu), items, cpu, tmp_path / "here", view)
    torch.testing.assert_close(there, here, rtol=0, atol=1e-4)


def test_memory_that_runs_out_halves_the_batch(device, tmp_path):
    encoder, cpu = tiny_text(device), torch.device("cpu")
    encode = encoder.encode

    def hungry(batch, view="pooled"):
        if sum(len(rows) for rows, _ in batch) > 5:
            if device.type == "cpu":
                raise torch.OutOfMemoryError("pretended")
            torch.empty(1 << 45, dtype=torch.uint8, device=device)
        return encode(batch, view)

    encoder.encode = hungry
    items = ToyItems(texts(40))
    found, done = latents(encoder, items, device, tmp_path / "there", batch_size=16)
    here, _ = latents(tiny_text(cpu), items, cpu, tmp_path / "here")
    torch.testing.assert_close(found, here, rtol=0, atol=1e-4)
    assert any("cut to 4 to fit in memory" in warning for warning in done.warnings)


def test_a_batch_is_not_changed_by_those_after_it(device):
    """Latents are fetched while the next batch computes: into memory of their own."""
    encoder, items = tiny_text(device), ToyItems(texts(64))
    size = batch_size_for(encoder.spec, 4, device)
    with ItemEncoder(items, "pooled", [encoder], [device], size) as many:
        found = {}
        for batch in many.encoded(range(64), 64):
            for index, values in batch.parts():
                found |= dict(zip(index, values.values, strict=True))
    for i in (0, 17, 63):
        alone = encoder.encode(encoder.collate([items.values[i]]))[0].float().cpu().numpy()
        np.testing.assert_allclose(found[i], alone, atol=1e-4)


def test_an_encoder_leaves_no_memory_behind(device, tmp_path):
    if device.type == "cpu":
        return
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    latents(tiny_text(device), ToyItems(texts(40)), device, tmp_path)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated(device) <= before + (1 << 20)


def test_batches_arrive_and_latents_leave_whole_while_the_device_computes(device):
    """Buffers that were used again too early would hold what comes after."""
    transfer, draw = Transfer(device), torch.Generator().manual_seed(0)
    weight = torch.randn(256, 256, generator=draw).to(device)
    batches = [{"x": torch.randn(64, 256, generator=draw)} for _ in range(20)]
    leaving = []
    for batch in batches:
        there = transfer.sent(pinned(batch) if device.type == "cuda" else batch)
        found = there["x"]
        for _ in range(20):
            found = torch.tanh(found @ weight)
        fetched = transfer.fetched(found)
        leaving.append(fetched if fetched else lambda found=found: found)
    for batch, leave in zip(batches, leaving, strict=True):
        wanted = batch["x"].to(device)
        for _ in range(20):
            wanted = torch.tanh(wanted @ weight)
        assert leave().device.type == "cpu"
        torch.testing.assert_close(leave(), wanted.cpu(), rtol=0, atol=0)


def test_auto_chooses_half_precision_where_latents_agree(device, tmp_path):
    """The starter's encoder, which is on disk: `auto` loads what it compares by itself."""
    spec, items = registry.encoder("minilm"), ToyItems(texts(40))
    done = extract(spec, items, LatentStore(tmp_path), Encoding(device, backend="eager"))
    if device.type == "cpu":
        assert done.dtype == "float32" and not done.warnings
        return
    assert done.dtype == "float16" and "computes in float16" in done.warnings[0]
    plain = extract(spec, items, LatentStore(tmp_path), Encoding(device, "float32"))
    first, second = (e.table.rows(torch.arange(40)) for e in (done, plain))
    assert torch.nn.functional.cosine_similarity(first, second).min() > 0.9998


def scaled(x):
    """Of bytes `[c, h, w]`, as most image processors do it. A GPU may round divisions otherwise."""
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    return ((x / 255) - 0.45).div(deviation)


def as_bytes(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_bytes_become_the_numbers_that_a_cpu_makes_of_them(device):
    table = PixelTable.of(lambda image: scaled(as_bytes(image)), as_bytes, device)
    batch = torch.randint(0, 256, (4, 3, 33, 17), dtype=torch.uint8)
    found = table(batch.to(device)).cpu()
    assert torch.equal(found, torch.stack([scaled(one) for one in batch]))
