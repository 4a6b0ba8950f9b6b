"""The test rows of a run of `fusemix fuse` as its predictor scored them, kept to compare runs."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save

from fusemix_core.config import Part, read_toml
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.disk import write_atomically
from fusemix_core.errors import ConfigError
from fusemix_core.fusion.parts import Measures, measures
from fusemix_core.fusion.parts import Part as Rows
from fusemix_core.prediction import Targets
from fusemix_core.registry import registry
from fusemix_core.runs.baselines import label_of
from fusemix_core.saved import folder as files

NAME = "test_scores.safetensors"
_FORMAT = "fusemix-test-scores-1"
_TENSORS = ("scores", "values", "known", "groups", "fold", "places")
_AGAIN = "Run `fusemix fuse` again, without --private, which keeps nothing of single rows."

Key = tuple[str, int, int]
"""Path and row of a test row, and which of those of that row it is."""


@dataclass(frozen=True)
class RunScores:
    """The test rows of a run.

    Attributes:
        name: to show.
        folder: of the run.
        parts: those of each fold, or of the test split.
        keys: the rows of each part.
        about: the task and the targets, which must be the same in runs that are compared.
    """

    name: str
    folder: Path
    parts: list[Rows]
    keys: list[list[Key]]
    about: dict[str, Any]


def write_scores(
    folder: Path, parts: Sequence[Rows], chosen: str, task: str, dataset: PairedDataset
) -> None:
    """Write the scores of the chosen fuser.

    Args:
        folder: of the run.
        parts: the test rows of each fit.
        task: the registered name.
        dataset: the rows.
    """
    rows = np.concatenate([part.rows for part in parts])
    places = json.dumps([dataset.origin[int(row)] for row in rows], ensure_ascii=False).encode()
    sizes = [len(part.rows) for part in parts]
    tensors = {
        "scores": torch.cat([part.scores[chosen] for part in parts]).detach().cpu().contiguous(),
        "values": torch.cat([part.targets.values for part in parts]).cpu().contiguous(),
        "known": torch.cat([part.targets.known for part in parts]).cpu().contiguous(),
        "groups": torch.from_numpy(np.concatenate([part.groups for part in parts])),
        "fold": torch.arange(len(parts)).repeat_interleave(torch.tensor(sizes)),
        "places": torch.frombuffer(bytearray(places), dtype=torch.uint8),
    }
    options = json.dumps([dict(part.task.options) for part in parts])
    about = {"format": _FORMAT, "task": task, "options": options}
    write_atomically(folder / NAME, [save(tensors, about)])


def is_fused(path: str | Path) -> bool:
    """Whether a folder is that of a run of `fusemix fuse`, or of its model."""
    model = _folder(path) / "model"
    return (model / files.CONFIG).is_file() and files.read_config(model).kind == "predictor"


def read_scores(path: str | Path) -> RunScores:
    """The test rows of a run.

    Raises:
        ConfigError: it has none, or they can't be read.
    """
    folder = _folder(path)
    table = folder / NAME
    if not table.is_file():
        raise ConfigError(f"{path} has no {NAME}, so it can't be compared.", _AGAIN)
    config = _config(folder)
    base = str((config.get("data") or {}).get("base") or "")
    try:
        with safe_open(table, "pt") as file:
            about = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in _TENSORS}
        if about.get("format") != _FORMAT:
            raise ValueError(f"its format is {about.get('format')}")
        places = json.loads(found["places"].numpy().tobytes())
        options = json.loads(about["options"])
        tasks = [registry.build("task", Part(about["task"], values)) for values in options]
    except Exception as error:  # safetensors raises its own
        raise ConfigError(f"{table} can't be read: {error}", _AGAIN) from error
    name, times = label_of(str(path)), Counter[tuple[str, int]]()
    parts, keys = [], []
    for k, task in enumerate(tasks):
        at = torch.where(found["fold"] == k)[0]
        own = []
        for i in at.tolist():
            place = os.path.realpath(os.path.join(base, places[i][0])), int(places[i][1])
            own.append((*place, times[place]))
            times[place] += 1
        targets = Targets(found["values"][at], found["known"][at])
        groups = found["groups"][at].numpy()
        parts.append(Rows(task, targets, groups, {name: found["scores"][at]}, at.numpy()))
        keys.append(own)
    facts = (config.get("data") or {}).get("facts") or {}
    targets = {name: facts.get(name, name) for name in config.get("targets", ())}
    told = {"task": about["task"], "targets": targets}
    return RunScores(name, folder, parts, keys, told)


def with_names(runs: Sequence[RunScores]) -> list[RunScores]:
    """The runs, whose names all differ: those that don't are called by their folders."""
    names = [run.name for run in runs]
    return [
        replace(run, name=str(run.folder)) if names.count(run.name) > 1 else run for run in runs
    ]


def measured(runs: Sequence[RunScores]) -> Measures:
    """The primary metric of all runs, by a bootstrap that draws the same rows for all.

    Raises:
        ConfigError: they predict something else, or were tested on other rows.
    """
    first = runs[0]
    found = [measures(_in_order(run, first)) for run in runs]
    if any(one.drawn is None for one in found):
        drawn = None
    else:
        drawn = np.concatenate([one.drawn for one in found if one.drawn is not None], axis=1)
    values = np.concatenate([one.values for one in found])
    return Measures(tuple(run.name for run in runs), values, drawn, found[0].sign)


def _in_order(run: RunScores, first: RunScores) -> list[Rows]:
    """The parts of a run, with rows in the order of the first run and in groups like there."""
    what = f"{first.name} and {run.name}"
    if run.about != first.about:
        raise ConfigError(
            f"{what} don't predict the same: {_told(first)} and {_told(run)}.",
            "Compare runs with the same --target and --task.",
        )
    if [set(keys) for keys in run.keys] != [set(keys) for keys in first.keys]:
        raise ConfigError(
            f"{what} were not tested on the same rows.",
            "Give both runs the same data, --folds, --seed and way of splitting.",
        )
    parts = []
    for part, own, keys, other in zip(run.parts, run.keys, first.keys, first.parts, strict=True):
        at = {key: i for i, key in enumerate(own)}
        order = torch.tensor([at[key] for key in keys], dtype=torch.long)
        targets = part.targets[order]
        if not torch.equal(targets.known, other.targets.known):
            raise ConfigError(
                f"{what} don't know the same targets.", "Give both runs the same data."
            )
        (values,) = part.scores.values()
        scores = {run.name: values[order]}
        parts.append(Rows(part.task, targets, other.groups, scores, other.rows))
    return parts


def _told(run: RunScores) -> str:
    return f"{run.about['task']} of {', '.join(map(str, run.about['targets'].values()))}"


def _folder(path: str | Path) -> Path:
    given = Path(path)
    return next((f for f in (given, given.parent) if (f / "model").is_dir()), given)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.toml"
    return dict(read_toml(path)) if path.is_file() else {}
