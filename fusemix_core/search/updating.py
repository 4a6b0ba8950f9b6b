"""How a collection is begun and brought up to its data."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from fusemix_core.config import DataConfig, Part, from_dict, to_dict
from fusemix_core.digests import file_sha256
from fusemix_core.disk import locked, make_folder
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.fused import FusedModel
from fusemix_core.runs.reporter import Reporter
from fusemix_core.search.building import add_new, random_scores
from fusemix_core.search.exporting import query_networks
from fusemix_core.search.items import write_items
from fusemix_core.search.lookup import Lookup
from fusemix_core.search.reading import Read, read_collection
from fusemix_core.search.state import MODEL, NAME, State
from fusemix_core.vectors import Index

_GREW = 1.2
"""By how much a collection grows before the scores of random pairs are taken anew."""


def first_state(model: FusedModel, data: DataConfig, to: Sequence[str], backend: Part) -> State:
    """The state of a collection that is still empty.

    Raises:
        ConfigError: The model lacks a modality in `to`, or its scorer can't be served by an index.
    """
    if unknown := [m for m in to if m not in model.modalities]:
        raise ConfigError(
            f"The model has no modality '{unknown[0]}'.", f"It has {', '.join(model.modalities)}."
        )
    asks = {m: model.encoders[m].takes for m in model.modalities}
    none = torch.zeros(0, model.dim)
    lifted = model.scorer.lift(none, model.modalities[0], list(asks), gallery=True)
    return State(
        weights=weights_of(model),
        dim=model.dim,
        kept=lifted.shape[1] - model.dim,
        scorer=model.scorer_name,
        takes={m: asks[m] for m in to or asks},
        asks=asks,
        data=to_dict(data),
        backend=to_dict(backend),
    )


def begin(folder: Path, state: State, model: FusedModel) -> None:
    """Make an empty collection in a folder. One that was begun alike and not finished goes on, with
    the data of `state`.

    Raises:
        ConfigError: The folder has anything else.
    """
    make_folder(folder)
    with locked(folder):
        begun = begun_in(folder, state)
        if begun is None:
            model.save_pretrained(folder / MODEL)
        if begun != state:
            state.write(folder)


def begun_in(folder: Path, state: State) -> State | None:
    """The state of a collection that was begun in a folder and not finished; None if the folder is
    new.

    Raises:
        ConfigError: The folder has anything else, or the collection differs from `state` in more
            than its data.
    """
    names = (path.name for path in folder.iterdir()) if folder.exists() else ()
    there = {name for name in names if not name.startswith(".")}
    if NAME in there:
        before = State.read(folder)
        if before.items or replace(before, data=state.data) != state:
            raise ConfigError(
                f"{folder} has an index already.",
                f"Update it: fusemix index update {folder}\nOr choose another --out.",
            )
        return before
    if there - {MODEL}:
        raise ConfigError(f"{folder} is not empty.", "Choose a new folder for the index.")
    return None


def weights_of(model: FusedModel) -> str:
    """The SHA-256 that the weights of a model have when they are saved."""
    with tempfile.TemporaryDirectory(prefix="fusemix-") as folder:
        model.save_pretrained(Path(folder) / MODEL)
        return file_sha256(Path(folder) / MODEL / "model.safetensors")


def update(
    folder: Path,
    state: State,
    model: FusedModel,
    indexes: Mapping[str, Index],
    reporter: Reporter,
    read: Read | None = None,
) -> dict[str, int]:
    """Bring a collection, which is locked, up to its data; see `Collection.update`. `read` are the
    data if they are read already.

    The order makes a kill harmless at any time: first vectors are added, then the new state is
    published, and only then are vectors removed that it doesn't need. Query networks come last.
    """
    config = from_dict(DataConfig, state.data)
    read = read or read_collection(config, state.takes, reporter)
    there: dict[str, np.ndarray] = {}
    before = sum(map(len, indexes.values()))
    for modality, items in read.dataset.items.items():
        for fault in indexes[modality].repair():
            reporter.note(f"{fault} What it contained is made again.")
        before = min(before, sum(map(len, indexes.values())))
        there[modality] = add_new(model, items, indexes[modality], list(state.asks), reporter)
    _check_bad(read, there, config.max_bad)
    added = sum(map(len, indexes.values())) - before
    records = (read.records(m, np.flatnonzero(has)) for m, has in there.items())
    made = replace(
        state,
        columns=read.kinds,
        roots=read.roots,
        items=write_items(folder, read.kinds, chain.from_iterable(records)),
        counts={m: int(has.sum()) for m, has in there.items()},
        updated=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    made = replace(made, scores=_scores(state, made, model, indexes))
    made.write(folder)
    removed = 0
    for modality, index in indexes.items():
        items = read.dataset.items.get(modality)
        kept = items.keys if items is not None else np.zeros((0, 2), np.uint64)
        removed += index.remove(index.keys[Lookup(kept).find(index.keys) < 0])
        index.settle()
    networks = query_networks(folder, made, model, reporter)
    if networks != made.networks:
        replace(made, networks=networks).write(folder)
    return {"added": added, "removed": removed, "items": sum(made.counts.values())}


def _scores(
    before: State, made: State, model: FusedModel, indexes: Mapping[str, Index]
) -> Mapping[str, list[float]]:
    """The scores of random pairs, as they were if the collection has hardly grown."""
    was, now = sum(before.counts.values()), sum(made.counts.values())
    if was and was / _GREW < now < was * _GREW:
        return before.scores
    return random_scores(model, indexes, list(made.asks))


def _check_bad(read: Read, there: Mapping[str, np.ndarray], max_bad: float) -> None:
    """Raise `DataError` if too many items could not be decoded."""
    bad = sum(int((~has).sum()) for has in there.values())
    total = sum(map(len, there.values()))
    if bad > max_bad * total:
        raise DataError(
            f"{bad:,} of {total:,} items can't be decoded ({bad / total:.1%}); the limit is "
            f"{max_bad:.1%}.",
            "Mend or remove these files, or allow as many: --max-bad "
            f"{min(1.0, np.ceil(bad / total * 100) / 100):g}",
        )
