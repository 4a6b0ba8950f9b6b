"""What selectors choose from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.interfaces import LatentTable, PairedLatents


class Candidates(NamedTuple):
    """Rows of pairs and the item that each has of one modality: `table`, `rows` and `items`, both
    int64 `[n]`, rows ascending."""

    table: LatentTable
    rows: Tensor
    items: Tensor


def check_size(k: int, n: int) -> None:
    """Raise `ConfigError` unless k of n rows can be chosen."""
    if not 0 <= k <= n:
        raise ConfigError(f"{k:,} of {n:,} rows can't be chosen.", f"Choose from 0 to {n:,}.")


def candidates(pairs: PairedLatents, modality: str) -> Candidates:
    """The first row of each item of a modality (of the first modality, if it is "").

    Raises `UnknownNameError` for a modality that the pairs do not have.
    """
    modality = modality or pairs.modalities[0]
    if modality not in pairs.modalities:
        raise UnknownNameError.of("modality of these pairs", modality, pairs.modalities)
    ids = pairs.links[:, pairs.modalities.index(modality)].numpy()
    present = np.flatnonzero(ids >= 0)
    _, first = np.unique(ids[present], return_index=True)
    rows = torch.from_numpy(present[np.sort(first)])
    return Candidates(pairs.tables[modality], rows, torch.from_numpy(ids)[rows])
