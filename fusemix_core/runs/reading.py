"""Reading the data of a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusemix_core.config import DataConfig
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.reading import read_pairs


def read_usable(
    config: DataConfig, takes: Mapping[str, str], seed: int = 0, **how: Any
) -> PairedDataset:
    """The paired dataset that `config` describes, if enough of it can be used.

    Args:
        config, takes, seed, how: As in `read_pairs`.

    Raises:
        DataError: If the data can't be read, or more than `config.max_bad` of the rows are bad.
    """
    dataset = read_pairs(config, takes, seed, **how)
    dataset.check_bad(config.max_bad)
    return dataset
