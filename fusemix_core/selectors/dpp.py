"""The `dpp` selector: a diverse subset, by greedy inference of a determinantal point process."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.batch import sent
from fusemix_core.devices import exact_device
from fusemix_core.interfaces import (
    FitContext,
    LatentTable,
    PairedLatents,
    ResidentLatents,
    Selector,
    rows_of,
)
from fusemix_core.selectors.candidates import candidates, check_size
from fusemix_core.selectors.greedy import lazy_greedy

TOLERANCE = 1e-10
CHUNK = 8192


class DppSelector(Selector):
    """Chooses rows whose items of one modality differ; see `dpp_of_latents`.

    by: the modality; "" is the first. tolerance: as in `lazy_greedy`. Of rows that share an item
    the first may be chosen, of rows that lack the modality none.
    """

    fewer = "all other rows have what those chosen have, or lack the modality"

    uses = ("latents",)

    def __init__(self, *, by: str = "", tolerance: float = TOLERANCE) -> None:
        self.by, self.tolerance = by, tolerance

    def select(self, pairs: PairedLatents, k: int, context: FitContext) -> Tensor:
        check_size(k, len(pairs))
        table, rows, items = candidates(pairs, self.by)
        kernel = CosineKernel(table, items, context.device)
        k = min(k, len(rows))

        def told(taken: int) -> None:
            for callback in context.callbacks:
                callback.on_pairs(taken, k)

        return rows[lazy_greedy(kernel, k, self.tolerance, told=told)]


def dpp_of_latents(latents: Tensor, k: int, tolerance: float = TOLERANCE) -> Tensor:
    """`lazy_greedy` of the `CosineKernel` of latents `[n, d]`; int64, k items or fewer."""
    check_size(k, len(latents))
    table = ResidentLatents(latents)
    kernel = CosineKernel(table, torch.arange(len(latents)), latents.device)
    return lazy_greedy(kernel, k, tolerance)


def dpp_of_kernel(kernel: Tensor, k: int, tolerance: float = TOLERANCE) -> Tensor:
    """`lazy_greedy` of a positive semi-definite kernel `[n, n]`; int64, k items or fewer."""
    check_size(k, len(kernel))
    return lazy_greedy(GivenKernel(kernel), k, tolerance)


class CosineKernel:
    """(cos(x_i, x_j) + 1)² of items of a table, int64 `[n]`, read when they are needed.

    A latent of zeros has the cosine 0 with all, itself too.
    """

    def __init__(self, table: LatentTable, items: Tensor, device: torch.device) -> None:
        self.table, self.items = table, items
        self.device = exact_device(device)

    def diagonal(self) -> Tensor:
        parts = [rows_of(self.table, items).any(dim=1) for items in self.items.split(CHUNK)]
        zero = ~torch.cat(parts).cpu()
        return torch.full((len(zero),), 4.0, dtype=torch.float64).masked_fill_(zero, 1.0)

    def take(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        rows = sent(rows_of(self.table, self.items[index]), self.device).to(dtype)
        return normalize(rows, dim=1, eps=1e-12)

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T).add_(1).square_()


class GivenKernel:
    """A kernel that is there, `[n, n]`."""

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = kernel

    def diagonal(self) -> Tensor:
        return self.kernel.diagonal().double().cpu()

    def take(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        return index.to(self.kernel.device, dtype)

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        return self.kernel[x.long()][:, y.long()].to(x.dtype)
