"""Which passes over similarities are taken on a device."""

from __future__ import annotations

import warnings
from functools import cache

import torch

from fusemix_core.objectives.half_passes import PLAIN, Passes


def passes_on(device: torch.device) -> Passes:
    """Triton's on a GPU if it gives what torch gives, else torch's."""
    return _fused(device) or PLAIN if device.type == "cuda" else PLAIN


@cache
def _fused(device: torch.device) -> Passes | None:
    """Triton's passes, None if they are not, or not the same: that is warned of once."""
    try:
        from fusemix_core.objectives.half_triton import FUSED

        check(FUSED, device)
    except ImportError:
        return None
    except Exception as error:  # a compiler raises anything
        warnings.warn(
            f"Triton can't be used for the loss on {device}, which is slower without: {error}",
            stacklevel=2,
        )
        return None
    return FUSED


def check(passes: Passes, device: torch.device) -> None:
    """Raise `ArithmeticError` unless passes give what torch's give, for a small ragged tile."""
    draw = torch.Generator().manual_seed(0)
    tile = (30 * torch.randn(70, 300, generator=draw)).to(device)
    tile[3, 5:] = -torch.inf
    row_sums, column_sums = tile.logsumexp(1), tile.logsumexp(0)
    by_row, by_column, partners = (torch.randn(n, generator=draw).to(device) for n in (70, 300, 70))
    scale = torch.tensor(100.0).to(device)
    results = [
        (
            *own.statistics(tile.clone(), 9),
            own.weights(
                tile.clone(), 9, row_sums, column_sums, by_row, by_column, partners, scale, None
            ).float(),
        )
        for own in (PLAIN, passes)
    ]
    for wanted, found in zip(*results, strict=True):
        if not torch.allclose(found, wanted, rtol=2e-3, atol=1e-4):
            raise ArithmeticError("it gives other numbers than torch")
