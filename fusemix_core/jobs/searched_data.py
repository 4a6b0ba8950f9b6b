"""Which data a fused model searches, and which of its columns are shown beside what is found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusemix_core.config import DataConfig, from_dict
from fusemix_core.data.media import medium
from fusemix_core.fused import FusedModel
from fusemix_core.jobs.measured_data import data_table, run_of


@dataclass(frozen=True)
class SearchedData:
    """What to search, and the columns to show beside each hit."""

    config: DataConfig
    columns: tuple[str, ...] = ()


def searched_data(
    path: str | Path,
    model: FusedModel,
    target: str,
    given: Mapping[str, Any],
    columns: Sequence[str] | None = None,
) -> SearchedData:
    """What to search for items of the modality `target`.

    Args:
        path: The folder of the model or of its run.
        given: Fields of `DataConfig`. Without a source, the items that the target's encoder lists
            (own latents), else the data of the model's own run.
        columns: The columns to show. None: of the model's own data, the texts that belong to the
            items.

    Raises:
        ConfigError: If there are no data.
    """
    if not given.get("source") and model.encoders[target].takes == "id":
        listed = model.encoder(target).spec.items
        if listed:
            own_list = {"source": [listed], "columns": {target: "id"}, **given}
            return SearchedData(from_dict(DataConfig, own_list, "data."), tuple(columns or ()))
    run = run_of(path)
    table, own = data_table(path, run, given)
    if columns is None:
        columns = _texts(path, model, target) if own else ()
    return SearchedData(from_dict(DataConfig, table, "data."), tuple(columns))


def _texts(path: str | Path, model: FusedModel, target: str) -> list[str]:
    """The columns that the run read texts from, as its results have them; none if these are texts
    themselves that are searched, or the run has no such results."""
    folder = next((f for f in (Path(path), Path(path).parent) if (f / "model").is_dir()), None)
    inline = [m for m, e in model.encoders.items() if medium(e.takes).inline]
    if folder is None or target in inline:
        return []
    try:
        read = json.loads((folder / "results.json").read_text())["columns"]
        return [c for m in inline for c in read.get(m, []) if isinstance(c, str) and "{" not in c]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
