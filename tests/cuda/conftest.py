"""Tests of a real GPU: `pytest -m cuda tests/cuda`, as `make gpu` runs them.

No default run collects them: the marker leaves them out. With FUSEMIX_CUDA_TESTS_ON=cpu they are
rehearsed on a CPU, which shows that every line runs and that what they expect holds there.
"""

import os

import pytest
import torch

from fusemix_core.interfaces import PairedLatents, ResidentLatents


@pytest.fixture(scope="session")
def device():
    found = torch.device(os.environ.get("FUSEMIX_CUDA_TESTS_ON", "cuda"))
    if found.type == "cuda":
        assert torch.cuda.is_available(), "There is no GPU; FUSEMIX_CUDA_TESTS_ON=cpu rehearses."
        return torch.device("cuda", torch.cuda.current_device())
    return found


@pytest.fixture(scope="session")
def pairs():
    """`pairs(count)`: latents of three modalities on the CPU, with gaps if `missing` is above 0."""

    def made(count, missing=0.0, dtype=torch.float16):
        draw = torch.Generator().manual_seed(0)
        cause = torch.randn(count, 6, generator=draw)
        tables = {}
        for modality, width in (("image", 24), ("text", 16), ("audio", 12)):
            rows = cause @ torch.randn(6, width, generator=draw)
            rows += 0.3 * torch.randn(rows.shape, generator=draw)
            tables[modality] = ResidentLatents(rows.to(dtype))
        links = torch.arange(count)[:, None].repeat(1, 3)
        links[torch.rand(links.shape, generator=draw) < missing] = -1
        return PairedLatents(tables, links[(links >= 0).sum(1) > 1])

    return made


@pytest.fixture(scope="session")
def on():
    """`on(device, pairs)`: the same pairs with their tables there."""

    def moved(device, pairs):
        tables = {m: table.to(device) for m, table in pairs.tables.items()}
        return PairedLatents(tables, pairs.links, pairs.facts)

    return moved
