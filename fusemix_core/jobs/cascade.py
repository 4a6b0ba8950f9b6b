"""Predicting with few encodings: expensive modalities only for rows that need them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.config import DataConfig
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.facts import Fact
from fusemix_core.data.media import medium
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.fusion.cascade import confidence, expected
from fusemix_core.jobs.predict import Predictions, read_for, rows_of, scored
from fusemix_core.predictor import Predictor, combination
from fusemix_core.runs.models import encode_for
from fusemix_core.runs.notices import Notices
from fusemix_core.runs.rates import Rates, encode_rate_key
from fusemix_core.runs.reporter import Reporter

_ROW = "fusemix_row"
"""The fact with the number that a row has in the whole dataset."""


def cascade(
    predictor: Predictor,
    config: DataConfig,
    threshold: float,
    cheap: Sequence[str] = (),
    *,
    reporter: Reporter | None = None,
) -> Predictions:
    """Predict every row from the cheap modalities, and from all if that is not confident.

    Args:
        predictor: predicts classes.
        config: the data.
        threshold: the probability of the predicted class from which a row is confident.
        cheap: the modalities that are encoded for all rows; by default all but the slowest.
        reporter: gets the progress.

    Returns:
        The predictions. Their notices have `cascade`: for how many rows the other modalities were
        not encoded, and the accuracy to expect.

    Raises:
        ConfigError: the predictor has no such cascade.
    """
    reporter = reporter or Reporter()
    cheap = check_cascade(predictor, threshold, cheap)
    dataset = read_for(predictor, config, reporter)
    count = len(dataset)
    dataset = replace(dataset, facts={_ROW: Fact("class", np.arange(count))})
    scores = torch.full((count, predictor.task.outputs), float("nan"))
    present = torch.zeros(count, len(predictor.modalities), dtype=torch.bool)
    rejected, warnings = list(dataset.rejected), []

    def predict(part: PairedDataset) -> None:
        if not len(part):
            return
        encoded = encode_for(predictor, part, reporter, config.max_bad)
        rows = rows_of(predictor, encoded.dataset, encoded.paired())
        numbers = torch.from_numpy(encoded.dataset.facts[_ROW].values)
        scores[numbers], present[numbers] = scored(predictor, rows), rows.present
        rejected.extend(encoded.dataset.rejected)
        warnings.extend(encoded.warnings)

    costly = [m for m in dataset.modalities if m not in cheap]
    predict(selected(dataset.leaving_out(costly), np.arange(count)))
    sure = confidence(predictor.task, scores) >= threshold
    has = [dataset.modalities.index(m) for m in costly]
    saved = int((dataset.links[:, has] >= 0).any(axis=1)[sure.numpy()].sum())
    scores[~sure], present[~sure] = float("nan"), False
    predict(selected(dataset, (~sure).nonzero()[:, 0].numpy()))
    rejected, warnings = list(dict.fromkeys(rejected)), list(dict.fromkeys(warnings))
    notices = Notices.of(replace(dataset, rejected=rejected), warnings).as_dict()
    notices["cascade"] = _told(predictor, threshold, cheap, int(sure.sum()), saved)
    found = _predictions(predictor, dataset, scores, present)
    return Predictions(*found, notices, rejected)


def check_cascade(predictor: Predictor, threshold: float, cheap: Sequence[str]) -> tuple[str, ...]:
    """The cheap modalities of a cascade, in the predictor's order. Raises `ConfigError`."""
    modalities = predictor.modalities
    if predictor.task.gives != "classes":
        raise ConfigError(
            "A cascade stops at a probable class, and this predictor does not predict one of "
            "several classes.",
            "Predict without --cascade.",
        )
    if not 0 < threshold <= 1:
        raise ConfigError(f"--cascade is {threshold:g}.", "It is a probability, such as 0.9.")
    for m in cheap:
        if m not in modalities:
            raise UnknownNameError.of("modality of this predictor", m, modalities)
    if len(modalities) < 2 or len(set(cheap)) == len(modalities):
        raise ConfigError(
            "A cascade needs a modality that is not cheap, and one that is.",
            f"The modalities of this predictor: {', '.join(modalities)}",
        )
    if not cheap:
        slowest = _slowest(predictor)
        cheap = [m for m in modalities if m != slowest]
    return tuple(m for m in modalities if m in cheap)


def _slowest(predictor: Predictor) -> str:
    """The modality that takes longest to encode, by the rates that this machine has shown."""
    rates, seconds = Rates(), {}
    for m, info in predictor.encoders.items():
        known = rates.seconds(encode_rate_key(info.fingerprint, predictor.device.type), 1)
        if known is None:
            known = 0.0 if medium(info.takes).joined else math.inf
        seconds[m] = known
    most = max(seconds.values())
    slowest = [m for m, one in seconds.items() if one == most]
    if len(slowest) > 1:
        raise ConfigError(
            f"It is not known whether {' or '.join(slowest)} takes longer to encode.",
            f"Name the modalities to begin with: --cheap {slowest[0]}",
        )
    return slowest[0]


def selected(dataset: PairedDataset, rows: np.ndarray) -> PairedDataset:
    """Those of the rows, int64, that have an item, with the modalities and items that they use."""
    rows = rows[(dataset.links[rows] >= 0).any(axis=1)]
    links, items = dataset.links[rows].copy(), {}
    for k, m in enumerate(dataset.modalities):
        used, number = np.unique(links[:, k], return_inverse=True)
        gaps = int((used < 0).any())
        links[:, k] = number - gaps
        items[m] = dataset.items[m].select(used[gaps:])
    found = replace(
        dataset,
        items=items,
        links=links,
        splits={},
        origin=dataset.origin.select(rows),
        facts={name: fact.select(rows) for name, fact in dataset.facts.items()},
        unpaired={},
    )
    return found.leaving_out([m for m, own in items.items() if not len(own)])


def _predictions(
    predictor: Predictor, dataset: PairedDataset, scores: Tensor, present: Tensor
) -> tuple[list[tuple[str, int]], Any]:
    """(origin, columns) of the rows that have a prediction, in the order of the data."""
    able = scores.isfinite().all(dim=1).nonzero()[:, 0].tolist()
    order = sorted(able, key=lambda i: dataset.origin[i])
    columns = predictor.columns(scores[order], present[order])
    return [dataset.origin[i] for i in order], columns


def _told(
    predictor: Predictor, threshold: float, cheap: Sequence[str], sure: int, saved: int
) -> dict[str, Any]:
    """What the cascade did, and the accuracy to expect of it."""
    name = combination(predictor.modalities, [m in cheap for m in predictor.modalities])
    told = {"threshold": threshold, "cheap": list(cheap), "confident": sure, "saved": saved}
    if curve := predictor.metrics.get("cascade", {}).get(name):
        share, accuracy = expected(curve, threshold)
        told |= {"expected_share": share, "expected_accuracy": accuracy}
    return told
