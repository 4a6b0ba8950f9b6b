"""The share of each modality in a prediction: in a run, and row by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from fusemix_core.config import DataConfig
from fusemix_core.errors import ArtefactError
from fusemix_core.jobs.predict import Predictions, read_for, rows_of, scored
from fusemix_core.predictor import Predictor
from fusemix_core.reports.fuse import gain_sections
from fusemix_core.runs.models import encode_for
from fusemix_core.runs.notices import Notices
from fusemix_core.runs.reporter import Reporter
from fusemix_core.saved.named import check_named
from fusemix_core.sections import Section

_SHOWN = ("task", "fuser", "verdict", "shares", "combinations", "by_missing", "columns")


def explained_run(run: str | Path) -> dict[str, Any]:
    """What a run of `fusemix fuse` found of its modalities, from its results.json.

    Raises:
        ArtefactError: it is not there, or is not such a run.
    """
    check_named(run)
    file = Path(run) / "results.json"
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        return {name: results[name] for name in _SHOWN}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ArtefactError(
            f"{file} has no results of `fusemix fuse`.",
            "Give the folder of its run; without a run, rows can be explained: --data PATH",
        ) from error


def sections(results: dict[str, Any]) -> list[Section]:
    """The sections that the terminal shows of these results."""
    return gain_sections(results)


def explain_rows(
    predictor: Predictor, config: DataConfig, *, reporter: Reporter | None = None
) -> Predictions:
    """The prediction of each row, and what it would be without each modality that the row has.

    Args:
        predictor: what predicts.
        config: the data.
        reporter: gets the progress.
    """
    reporter = reporter or Reporter()
    dataset = read_for(predictor, config, reporter)
    encoded = encode_for(predictor, dataset, reporter, config.max_bad)
    rows = rows_of(predictor, encoded.dataset, encoded.paired())
    origin = [encoded.dataset.origin[i] for i in range(len(encoded.dataset))]
    order = sorted(range(len(origin)), key=lambda i: origin[i])
    index = torch.tensor(order, dtype=torch.long)
    columns = predictor.columns(scored(predictor, rows)[index], rows.present[index])
    columns = {name: columns[name] for name in ("prediction", "modalities")}
    for k, m in enumerate(predictor.modalities):
        others = [o for o in predictor.modalities if o != m]
        scores = scored(predictor, rows, others)[index] if others else None
        shown: list[Any] = [None] * len(order)
        able = rows.present[index][:, k]
        if scores is not None:
            able &= scores.isfinite().all(dim=1)
            found = predictor.task.decode(scores.nan_to_num())["prediction"]
            for i in able.nonzero()[:, 0].tolist():
                shown[i] = found[i]
        columns[f"without_{m}"] = shown
    notices = Notices.of(encoded.dataset, encoded.warnings).as_dict()
    return Predictions([origin[i] for i in order], columns, notices, encoded.dataset.rejected)
