"""Which data, and which part of it, a fused model is measured on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusemix_core.config import DataConfig, from_dict, read_toml, to_dict
from fusemix_core.data.dataset import SPLITS
from fusemix_core.errors import ConfigError
from fusemix_core.saved.named import check_named

SPLITTING = ("split_column", "test", "validation_fraction", "test_fraction")
"""The fields of `DataConfig` that say which rows are in which split."""


@dataclass(frozen=True)
class MeasuredData:
    """A split of a dataset (`all`: every row), and the seed that splits it."""

    config: DataConfig
    split: str
    seed: int


def measured_data(
    model: str | Path, given: Mapping[str, Any], split: str | None, seed: int | None
) -> MeasuredData:
    """What to measure the model of a run on.

    given: fields of `DataConfig`. On the data of its own run, which is also meant where none are
    given, a model is measured on the split it was not trained on: the run's seed and way of
    splitting are kept, so that no training pair gets into the test. On other data every row counts,
    unless `given` or `split` says otherwise.
    """
    run = run_of(model)
    if type(run.get("seed", 0)) is not int:
        raise ConfigError(f"The config.toml of the run of {model} has no seed.")
    table, own = data_table(model, run, given)
    if split not in (None, "all", *SPLITS):
        raise ConfigError(f"'{split}' is not a split.", f"Splits: {', '.join(SPLITS)}, all.")
    if split is None:
        split = "test" if own or any(name in given for name in SPLITTING) else "all"
    if seed is None:
        seed = run.get("seed", 0) if own else 0
    return MeasuredData(from_dict(DataConfig, table, "data."), split, seed)


def data_table(
    model: str | Path, run: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], bool]:
    """The fields of `DataConfig` that were given, and whether they name the data of the model's own
    run, as no data do. Then the run's other fields are among them.

    Raises:
        ConfigError: If no data are given and the run, if there is one, doesn't name any.
        ArtefactError: If no data are given and there is no such folder.
    """
    kept = run.get("data", {})
    if not isinstance(kept, dict):
        raise ConfigError(f"The config.toml of the run of {model} has no data.")
    kept = to_dict(from_dict(DataConfig, kept, "data.").located()) if kept else {}
    source = given.get("source") or kept.get("source", [])
    if not source:
        check_named(model)
        named = "is a run that names none" if run else "is not the folder of a run"
        raise ConfigError(
            f"No data given, and '{model}' {named}.", "Add --data PATH, or name a run's folder."
        )
    own = _resolved(kept.get("source", [])) == _resolved(source)
    return {**(kept if own else {}), **given, "source": source}, own


def _resolved(source: Sequence[str]) -> list[str]:
    return [os.path.realpath(one) for one in source]


def run_of(model: str | Path) -> dict[str, Any]:
    """The config of the run that a model lies in, or nothing."""
    for folder in (Path(model), Path(model).parent):
        if (folder / "config.toml").is_file() and (folder / "model").is_dir():
            return read_toml(folder / "config.toml")
    return {}
