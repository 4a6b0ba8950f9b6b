"""The `uniform` selector: a random subset."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fusemix_core.interfaces import FitContext, PairedLatents, Selector
from fusemix_core.selectors.candidates import check_size


def uniform_subset(n: int, k: int, seed: int = 1) -> Tensor:
    """k of n items without replacement, int64 `[k]`, in the order drawn.

    numpy's legacy `RandomState`, so that a seed gives the subset of the original and always will.
    """
    check_size(k, n)
    return torch.from_numpy(np.random.RandomState(seed).choice(n, k, replace=False)).long()


class UniformSelector(Selector):
    """Chooses rows at random, by the seed; see `uniform_subset`."""

    def select(self, pairs: PairedLatents, k: int, context: FitContext) -> Tensor:
        return uniform_subset(len(pairs), k, context.seed)
