"""Triton's passes on its interpreter; test_half.py runs this file."""

import pytest
import torch
from methods.dense import KEPT, MADE_AGAIN, dense, error, gradients, in_blocks, in_half, pairs

from fusemix_core.objectives import half
from fusemix_core.objectives.half_choice import check
from fusemix_core.objectives.half_passes import PLAIN, finite
from fusemix_core.objectives.half_triton import FUSED


@pytest.mark.parametrize(("n", "m", "first"), [(33, 300, 9), (1, 2, 1), (64, 256, 192)])
def test_passes_are_torchs(n, m, first):
    g = torch.Generator().manual_seed(3)
    tile = 50 * torch.randn(n, m, generator=g)
    tile[torch.rand(n, m, generator=g) < 0.2] = -torch.inf
    tile[:, 0] = -torch.inf
    tile.diagonal(first).fill_(2.5)
    before = tile.clone()
    for wanted, found in zip(
        PLAIN.statistics(tile, first), FUSED.statistics(tile, first), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    vectors = [torch.randn(k, generator=g) for k in (n, m, n)]
    column_sums = finite(tile.logsumexp(0))
    given = tile.logsumexp(1), column_sums, *vectors, torch.tensor(300.0), None
    wanted, found = (own.weights(tile, first, *given) for own in (PLAIN, FUSED))
    assert found.dtype == torch.float16
    torch.testing.assert_close(found, wanted, rtol=2e-3, atol=1e-3)
    assert torch.equal(tile, before)


def test_a_loss_of_several_blocks_has_its_gradients(monkeypatch):
    """Where no row has its partner in a block, too."""
    monkeypatch.setattr(half, "passes_on", lambda device: FUSED)
    monkeypatch.setattr(half, "TILE_BYTES", 1 << 13)
    x, y = pairs(300, 32, 0.7)
    wanted, of_rows = gradients(dense, x, y, 0.05, torch.float64)
    value, found = gradients(in_blocks, x, y, 0.05, torch.float32)
    assert value == pytest.approx(wanted, rel=1e-3)
    assert error(found[0], of_rows[0]) < 1e-3 and error(found[1], of_rows[1]) < 1e-3


@pytest.mark.parametrize("kept", [KEPT, MADE_AGAIN])
def test_the_loss_has_its_gradients(monkeypatch, kept):
    monkeypatch.setattr(half, "passes_on", lambda device: FUSED)
    monkeypatch.setattr(half, "TILE_BYTES", 1 << 14)
    x, y = pairs(90, 64, 0.7)
    wanted, of_rows = gradients(dense, x, y, 0.05, torch.float64)
    value, found = gradients(lambda *given: in_half(*given, kept=kept), x, y, 0.05, torch.float32)
    assert value == pytest.approx(wanted, rel=1e-3)
    assert error(found[0], of_rows[0]) < 1e-3 and error(found[1], of_rows[1]) < 1e-3


def test_they_are_taken():
    check(FUSED, torch.device("cpu"))
