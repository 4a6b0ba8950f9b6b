"""Fits the encoders that learn from training items before they encode any, for every job."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fusemix_core.data.dataset import PairedDataset
from fusemix_core.errors import ContractError, DataError, PluginError
from fusemix_core.latents.fingerprint import plain
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec

FIT_MOST = 20_000
"""Items that an encoder is fitted to; of more, so many at equal distances."""


def fit_encoders(
    specs: Mapping[str, EncoderSpec], dataset: PairedDataset, rows: np.ndarray | None = None
) -> dict[str, EncoderSpec]:
    """The specs; those that were `unfitted` have learnt from the training items.

    Args:
        specs: Modality → encoder, of modalities that the dataset has.
        dataset: Whose items are encoded.
        rows: The rows to learn from, int64. None: the training split, and the items for training
            without pairs.

    Returns:
        Modality → encoder, ready to load.

    Raises:
        DataError: There is no training item, or nothing can be learnt.
        ContractError: The encoder learns anything but plain data.

    Example:
        specs = fit_encoders(specs, dataset)
    """
    return {
        m: _fitted(m, spec, dataset, rows) if spec.unfitted else spec for m, spec in specs.items()
    }


def learnt(spec: EncoderSpec) -> Sequence[str]:
    """The findings of a fitted encoder, one line each; none of another."""
    if not spec.fitted or spec.unfitted:
        return ()
    return tuple(registry.target_of(spec).learnt(spec))


def training_items(
    dataset: PairedDataset, modality: str, rows: np.ndarray | None = None
) -> np.ndarray:
    """int64: the different items of a modality in these rows; see `fit_encoders`."""
    free: Any = ()
    if rows is None:
        rows, free = dataset.splits["train"], dataset.unpaired.get(modality, ())
    ids = dataset.links[rows, dataset.modalities.index(modality)]
    return np.union1d(ids[ids >= 0], np.asarray(free, np.int64))


def _fitted(
    modality: str, spec: EncoderSpec, dataset: PairedDataset, rows: np.ndarray | None
) -> EncoderSpec:
    ids = training_items(dataset, modality, rows)
    if len(ids) > FIT_MOST:
        ids = ids[np.linspace(0, len(ids) - 1, FIT_MOST).astype(np.int64)]
    items = []
    for i in ids.tolist():
        try:
            items.append(dataset.items[modality].load(i, spec.sample_rate))
        except DataError:  # counted and reported when it is encoded
            continue
    if not items:
        raise DataError(
            f"No training row has a {modality} to fit {spec.name} to.",
            "Check the column of this modality, or leave it out.",
        )
    spec.check_requirements()
    found = registry.target_of(spec).fit(spec, items)
    try:
        options = json.loads(json.dumps(plain(found.options), allow_nan=False))
    except (PluginError, ValueError) as error:
        raise ContractError(
            f"Encoder '{spec.name}'", "plain data from `fit`, with finite numbers", str(error)
        ) from error
    found = replace(found, options=options)
    if found.unfitted or replace(found, options=spec.options, dim=spec.dim) != spec:
        raise ContractError(
            f"Encoder '{spec.name}'",
            "from `fit` the spec with options['learnt'], and its dim",
            "something else",
        )
    return found
