"""Ten thousand `encode` calls and a thousand short fits in one process: memory stays flat."""

import gc
import os
from pathlib import Path

import pytest
import torch
from pairs import write_world
from toys import ToyImage, ToyText

from fusemix_core import align
from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.interfaces import FitContext, PairedLatents, ResidentLatents

GROWTH = 8 << 20
"""Bytes that the second half may add to what the first half left: what an allocator keeps."""


def resident() -> int:
    """Bytes of main memory that the process takes."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def check_flat(work, count: int) -> None:
    """`work` done `count` times adds no memory in its second half, files or threads neither."""
    for _ in range(count // 2):
        work()
    before, files = resident(), len(os.listdir("/proc/self/fd"))
    threads = len(os.listdir("/proc/self/task"))
    for _ in range(count - count // 2):
        work()
    grown = resident() - before
    assert grown < GROWTH, f"{grown / 1024:.0f} KiB in {count // 2} calls"
    assert len(os.listdir("/proc/self/fd")) <= files
    assert len(os.listdir("/proc/self/task")) < threads + count // 10  # pools may grow meanwhile


def fit() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(64, 16, generator=generator)
    links = torch.arange(64)[:, None].expand(64, 2).contiguous()
    data = PairedLatents({m: ResidentLatents(rows) for m in ("image", "text")}, links)
    recipe = Recipe(
        name="short",
        aligner=Part("gradient"),
        adapter=Part("linear"),
        mixup=Part("fusemix"),
        objective=Part("infonce"),
        training=Training(epochs=2, batch_size=32),
        dim=8,
    )
    train, validation = data.select(torch.arange(48)), data.select(torch.arange(48, 64))
    GradientAligner().fit(train, validation, recipe, FitContext())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("soak")
    data = write_world(folder / "world")
    done = align({"image": ToyImage, "text": ToyText}, data, out=folder / "run", device="cpu")
    return done.model, [folder / f"world/{i}.png" for i in range(4)]


def encode_with(model):
    fused, pictures = model

    def encode() -> None:
        a = fused.encode("text", ["a red car", "a blue bird of another length"])
        b = fused.encode("image", pictures)
        fused.similarity(a, b, "text", "image")

    return encode


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")


@needs_proc
def test_some_calls_and_fits(model):
    check_flat(encode_with(model), 300)
    check_flat(fit, 40)


@needs_proc
@pytest.mark.long
def test_ten_thousand_encode_calls(model):
    check_flat(encode_with(model), 10_000)


@needs_proc
@pytest.mark.long
def test_a_thousand_short_fits():
    check_flat(fit, 1_000)
