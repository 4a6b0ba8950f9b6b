"""The names of baselines: recipes, and finished models that were tested on the same rows."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusemix_core.config import RunConfig, read_toml
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.project import plugin_of
from fusemix_core.registry import registry
from fusemix_core.runs.models import model_of
from fusemix_core.saved import folder as files
from fusemix_core.saved.encoders import Source


@dataclass(frozen=True)
class Places:
    """Where rows were read: (file, row), once with the files' whole paths, and once with paths from
    the folder that the run was started in, as only these survive a copy of run and data."""

    whole: frozenset[tuple[str, int]]
    below: frozenset[tuple[str, int]]

    @classmethod
    def of(cls, rows: Iterable[tuple[str, int]], base: str) -> Places:
        """Those of rows whose files are named from the folder `base`."""
        rows = list(rows)
        real = {f: os.path.realpath(os.path.join(base, f)) for f in {file for file, _ in rows}}
        short = {f: os.path.relpath(path, os.path.realpath(base)) for f, path in real.items()}
        return cls(
            frozenset((real[file], row) for file, row in rows),
            frozenset((short[file], row) for file, row in rows),
        )

    def within(self, other: Places) -> bool:
        """Whether all of these rows are among others."""
        return self.whole <= other.whole or self.below <= other.below

    def missing(self, other: Places) -> int:
        """How many of these rows are not among others."""
        return min(len(self.whole - other.whole), len(self.below - other.below))


def is_recipe(name: str) -> bool:
    """Whether a baseline is a registered recipe, which is fitted; else it is a finished model."""
    found = registry.all_components("recipe")
    return name in {known for _, spec in found for known in (spec.name, *spec.aliases)}


def check_baselines(config: RunConfig, dataset: PairedDataset) -> None:
    """Raise `FusemixError` for a baseline that the rows of a run can't be measured by.

    A model must have two of the modalities. If it lies in a run, that must have been tested on the
    same rows, which also means that none of them was trained on.
    """
    for name in config.baselines:
        if not is_recipe(name):
            shared_modalities(name, dataset.modalities)
            rows = shown_rows(dataset)
            tested = places_of_run(name)
            if tested is not None and not tested.within(rows):
                raise _other_rows(name, tested, rows)


def shared_modalities(name: str, modalities: Sequence[str]) -> list[str]:
    """The modalities that a saved model has of these, two or more."""
    if "/" not in name and not Path(name).exists():
        recipes = [spec.name for _, spec in registry.all_components("recipe")]
        note = "A finished model is named by its folder, or that of its run."
        kind = "recipe" if plugin_of("recipe", name) else "baseline"
        raise UnknownNameError.of(kind, name, recipes, note)
    own = files.read_config(files.locate(model_of(name))).encoders
    shared = [m for m in modalities if m in own]
    if len(shared) < 2:
        raise ConfigError(
            f"The baseline {name} has {', '.join(own)}; these data have {', '.join(modalities)}.",
            "A baseline needs two of the modalities.",
        )
    return shared


def shown_rows(dataset: PairedDataset) -> Places:
    """Where the rows were read that a run is measured on: test, or validation if that is empty."""
    rows = dataset.splits["test"] if len(dataset.splits["test"]) else dataset.splits["validation"]
    return Places.of((dataset.origin[i] for i in rows.tolist()), os.getcwd())


def places_of_run(model: str) -> Places | None:
    """Where the rows were read that the run of a model was measured on; None if it isn't in a run.

    Raises:
        ConfigError: If the run doesn't list its rows.
    """
    folder = next((f for f in (Path(model), Path(model).parent) if (f / "model").is_dir()), None)
    if folder is None or not (folder / "config.toml").is_file():
        return None
    data = read_toml(folder / "config.toml").get("data", {})
    base = data.get("base") if isinstance(data, Mapping) else None
    splits: dict[str, list[tuple[str, int]]] = {}
    try:
        with open(folder / "splits.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                splits.setdefault(row["split"], []).append((row["file"], int(row["row"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"The run {folder} doesn't list its rows: splits.csv can't be read ({error}).",
            "Runs of earlier versions have none. Run it again to compare with it.",
        ) from error
    return Places.of(splits.get("test") or splits.get("validation", []), base or os.getcwd())


def _other_rows(name: str, tested: Places, rows: Places) -> ConfigError:
    return ConfigError(
        f"The baseline {name} was tested on other rows: {tested.missing(rows):,} of its "
        f"{len(tested.whole):,} test rows are not among the {len(rows.whole):,} of this run, and "
        f"{rows.missing(tested):,} of this run not among its.",
        "Numbers of different rows can't be compared. Give both runs the same data, --seed and "
        "way of splitting.",
    )


def label_of(name: str) -> str:
    """The name to show for a baseline: that of a recipe, the last of a folder, or a hub id."""
    path = Path(name)
    if is_recipe(name) or not path.is_dir():
        return name
    path = path.resolve()
    return path.parent.name if path.name == "model" else path.name


def check_rows(name: str, dataset: PairedDataset) -> None:
    """Raise `ConfigError` if a model lies in a run that was measured on other rows."""
    tested, rows = places_of_run(name), shown_rows(dataset)
    if tested is not None and not (tested.within(rows) and rows.within(tested)):
        raise _other_rows(name, tested, rows)


def same_encoders(name: str, sources: Mapping[str, Source]) -> dict[str, Source]:
    """Those of the sources that are what a saved model names."""
    own = files.read_config(files.locate(model_of(name))).encoders
    spec: dict[str, Any] = {m: getattr(source, "spec", source) for m, source in sources.items()}
    return {m: sources[m] for m, info in own.items() if m in spec and spec[m].name == info.name}
