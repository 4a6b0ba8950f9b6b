"""Predicting the rows of a table with a saved predictor."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.config import DataConfig, from_dict, to_dict
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.disk import Advice, explained
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.fuser import Labelled
from fusemix_core.paired import PairedLatents
from fusemix_core.prediction import Columns, Targets
from fusemix_core.predictor import Predictor
from fusemix_core.runs.folder import write_text
from fusemix_core.runs.models import encode_for
from fusemix_core.runs.notices import Notices
from fusemix_core.runs.reading import read_usable
from fusemix_core.runs.reporter import Reporter
from fusemix_core.saved.encoders import Source
from fusemix_core.saved.model import load

_KEPT = ("columns", "reader", "encoding", "delimiter", "missing_values", "prefix", "suffix")
"""Fields of the data of a run that hold for new data too."""
_ADVICE = Advice(
    "Free some space, or choose another --out.",
    "Choose an --out that you may write to.",
    "Check the disk.",
)


@dataclass
class Predictions:
    """The predictions of the rows of a table.

    Attributes:
        origin: (file, row) of each, in the order of the data.
        columns: column → a value per row: `prediction` and what `Predictor.columns` adds.
        notices: what became of the rows.
        rejected: rows that could not be predicted, and entries that were not used.
    """

    origin: list[tuple[str, int]]
    columns: Columns
    notices: dict[str, Any] = field(default_factory=dict)
    rejected: list[Any] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.origin)

    def write(self, path: str | Path) -> None:
        """Write a CSV: the file and row of each prediction, then the columns."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        several = len({file for file, _ in self.origin}) > 1
        writer.writerow([*(["file"] if several else []), "row", *self.columns])
        for i, (file, row) in enumerate(self.origin):
            values = [_cell(column[i]) for column in self.columns.values()]
            writer.writerow([*([file] if several else []), row, *values])
        with explained(f"{path}", _ADVICE):
            write_text(Path(path), out.getvalue())


def load_predictor(
    path: str | os.PathLike[str],
    device: str = "auto",
    encoders: Mapping[str, Source] | None = None,
) -> Predictor:
    """The predictor in a model folder or a run folder, or of a hub id.

    Raises:
        ArtefactError: it is a model of another kind.
    """
    model = load(path, device=device, encoders=encoders)
    if not isinstance(model, Predictor):
        raise ArtefactError(
            f"{path} is a model of the kind '{model.kind}', not a predictor.",
            "A predictor comes from `fusemix fuse`.",
        )
    return model


def predicted_data(given: Mapping[str, Any], run: Mapping[str, Any]) -> DataConfig:
    """The data to predict: as given, read as the run's data were.

    Args:
        given: fields of `DataConfig`.
        run: the config of the predictor's run; empty if it isn't known.
    """
    if not given.get("source"):
        raise ConfigError("No data given.", "Add --data PATH.")
    kept = to_dict(from_dict(DataConfig, run.get("data", {}), "data."))
    table = {name: kept[name] for name in _KEPT if name in kept} | dict(given)
    columns = {**kept.get("columns", {}), **given.get("columns", {})}
    fractions = {"validation_fraction": 0.0, "test_fraction": 0.0}
    return from_dict(DataConfig, {**table, "columns": columns, "missing": "ok", **fractions})


def predict(
    predictor: Predictor,
    config: DataConfig,
    *,
    reporter: Reporter | None = None,
) -> Predictions:
    """Predict every row that has an item of one modality or more.

    Args:
        predictor: what predicts.
        config: the data. Columns of modalities that they don't have are missing in every row.
        reporter: gets the progress.

    Raises:
        FusemixError: the data, or an encoder, can't be used.
    """
    reporter = reporter or Reporter()
    dataset = read_for(predictor, config, reporter)
    encoded = encode_for(predictor, dataset, reporter, config.max_bad)
    rows = rows_of(predictor, encoded.dataset, encoded.paired())
    scores = scored(predictor, rows)
    origin = [encoded.dataset.origin[i] for i in range(len(encoded.dataset))]
    order = sorted(range(len(origin)), key=lambda i: origin[i])
    index = torch.tensor(order, dtype=torch.long)
    columns = predictor.columns(scores[index], rows.present[index])
    columns = predictor.task.described(columns, items_of(encoded.dataset, order))
    notices = Notices.of(encoded.dataset, encoded.warnings).as_dict()
    rejected = encoded.dataset.rejected
    return Predictions([origin[i] for i in order], columns, notices, rejected)


def read_for(predictor: Predictor, config: DataConfig, reporter: Reporter) -> PairedDataset:
    """The rows of a dataset, with those of the predictor's modalities that have a column."""
    takes = {m: info.takes for m, info in predictor.encoders.items()}
    known = {m: column for m, column in config.columns.items() if m in takes}
    data = replace(config, columns=known)
    return read_usable(
        data, takes, tell=reporter.note, least=1, repeats=True, optional=takes
    )  # fmt: skip


def rows_of(predictor: Predictor, dataset: PairedDataset, pairs: PairedLatents) -> Labelled:
    """The rows with all modalities of the predictor, in its order, without targets."""
    count = len(dataset)
    links = torch.full((count, len(predictor.modalities)), -1, dtype=torch.long)
    tables = {}
    for k, m in enumerate(predictor.modalities):
        if m in pairs.tables:
            links[:, k] = pairs.links[:, pairs.modalities.index(m)]
            tables[m] = pairs.tables[m]
        else:
            tables[m] = _Nothing(predictor.encoders[m].dim)
    nothing = Targets(torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.bool))
    return Labelled(PairedLatents(tables, links), nothing, torch.arange(count))


class _Nothing:
    """The `LatentTable` of a modality that no row has."""

    def __init__(self, width: int) -> None:
        self.shape, self.dim = (width,), width

    def __len__(self) -> int:
        return 0

    def rows(self, index: Tensor) -> Tensor:
        return torch.zeros(len(index), self.dim)


def items_of(dataset: PairedDataset, rows: Sequence[int]) -> dict[str, list[str | None]]:
    """modality → the text, or the path, of each row's item, None if it is missing."""
    links = dataset.links[rows]
    return {
        m: [items.describe(i) if i >= 0 else None for i in links[:, k].tolist()]
        for k, (m, items) in enumerate(dataset.items.items())
    }


def scored(predictor: Predictor, rows: Labelled, only: Sequence[str] = ()) -> Tensor:
    """The scores float32 `[n, C]` of rows, from `only` these modalities if some are named; NaN if
    a row has none of them."""
    allowed = torch.tensor([not only or m in only for m in rows.modalities])
    found = torch.full((len(rows), predictor.task.outputs), float("nan"))
    able = (rows.present & allowed).any(dim=1).nonzero()[:, 0]
    taken = rows.as_taken_by(predictor.fuser)
    for part in able.split(4096):
        own = taken.select(part)
        latents = {m: own.latents(m) for m in own.modalities}
        found[part] = predictor.score(latents, own.present & allowed)
    return found


def _cell(value: Any) -> Any:
    """A value as a table has it: few digits, nothing for None and NaN."""
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{float(value):.6g}"
    return value.item() if hasattr(value, "item") else value
