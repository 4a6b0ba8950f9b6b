"""The `dpp` selector: a diverse subset, by greedy inference of a determinantal point process."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.selectors.uniform import check_size

TOLERANCE = 1e-10


def greedy_dpp(
    diagonal: Tensor, column: Callable[[int], Tensor], k: int, tolerance: float = TOLERANCE
) -> Tensor:
    """Up to k items of a kernel, int64, in the order taken (Chen et al., arXiv 1709.05135).

    Starts with the largest diagonal entry (the first on ties), then takes the item with the largest
    residual variance K_jj - K_jS K_SS⁻¹ K_Sj until k are taken or none has `tolerance` left: a
    kernel of lower rank gives fewer. `column(j)` is K[:, j] `[n]`, asked for once an item taken, so
    that time is O(n k²) and memory O(n k), beside what `column` needs.
    """
    check_size(k, len(diagonal))
    residual = diagonal.clone()
    factor = residual.new_empty(k, len(residual))  # rows of the incremental Cholesky factor
    taken: list[int] = []
    while len(taken) < k:
        best = int(residual.argmax())
        if residual[best] < tolerance:
            break
        done = factor[: len(taken)]
        row = (column(best) - done[:, best] @ done) / residual[best].sqrt()
        factor[len(taken)] = row
        residual -= row.square()
        taken.append(best)
        residual[taken] = -torch.inf
    return torch.tensor(taken, dtype=torch.int64)


def dpp_of_kernel(kernel: Tensor, k: int, tolerance: float = TOLERANCE) -> Tensor:
    """`greedy_dpp` of a positive semi-definite kernel `[n, n]`."""
    return greedy_dpp(kernel.diagonal(), lambda j: kernel[:, j], k, tolerance)


def dpp_of_latents(latents: Tensor, k: int, tolerance: float = TOLERANCE) -> Tensor:
    """`greedy_dpp` of the kernel (cos(x_i, x_j) + 1)² of latents `[n, d]`, in float64.

    The kernel is never held: each column is computed when it is needed.
    """
    unit = normalize(latents.double(), dim=1, eps=1e-12)
    diagonal = (unit.square().sum(1) + 1).square()
    return greedy_dpp(diagonal, lambda j: (unit @ unit[j] + 1).square(), k, tolerance)


class DppSelector:
    """Selects k diverse rows of the latents `[n, d]`; see `dpp_of_latents`."""

    def __init__(self, *, tolerance: float = TOLERANCE) -> None:
        self.tolerance = tolerance

    def __call__(self, latents: Tensor, k: int) -> Tensor:
        """int64, k items or fewer. Raises `ConfigError` if k is not from 0 to n."""
        return dpp_of_latents(latents, k, self.tolerance)
