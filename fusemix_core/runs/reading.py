"""Reading the data of a job. Every job reads by this, so that each tells the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusemix_core.config import DataConfig
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.reading import read_pairs
from fusemix_core.runs.notices import Notices, Tell, silent


def read_usable(
    config: DataConfig,
    takes: Mapping[str, str],
    seed: int = 0,
    *,
    tell: Tell | None = None,
    **how: Any,
) -> PairedDataset:
    """The paired dataset that `config` describes, if enough of it can be used.

    Args:
        config, takes, seed, how: As in `read_pairs`.
        tell: Gets notes on what became of the rows, which columns were read, and each warning.

    Raises:
        DataError: If the data can't be read, or more than `config.max_bad` of the rows are bad.
    """
    config = config.located()
    dataset = read_pairs(config, takes, seed, **how)
    notices, tell = Notices.of(dataset), tell or silent
    tell(notices.summary(config.files))
    for warning in notices.warnings:
        tell(warning)
    dataset.check_bad(config.max_bad)
    return dataset
