"""The `uniform` selector: a random subset."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fusemix_core.errors import ConfigError


def check_size(k: int, n: int) -> None:
    """Raise `ConfigError` unless k items can be taken from n."""
    if not 0 <= k <= n:
        raise ConfigError(f"{k} of {n} items can't be selected.", f"Choose from 0 to {n}.")


def uniform_subset(n: int, k: int, seed: int = 1) -> Tensor:
    """k of n items without replacement, int64 `[k]`, in the order drawn.

    numpy's legacy `RandomState`, so that a seed gives the subset of the original and always will.
    """
    check_size(k, n)
    return torch.from_numpy(np.random.RandomState(seed).choice(n, k, replace=False)).long()


class UniformSelector:
    """Selects k rows of the latents `[n, d]` at random; see `uniform_subset`."""

    def __init__(self, *, seed: int = 1) -> None:
        self.seed = seed

    def __call__(self, latents: Tensor, k: int) -> Tensor:
        """int64 `[k]`. Raises `ConfigError` if k is not from 0 to n."""
        return uniform_subset(len(latents), k, self.seed)
