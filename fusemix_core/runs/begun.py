"""The data that a run was begun with: it is not resumed on others."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fusemix_core.data.dataset import PairedDataset
from fusemix_core.errors import ArtefactError
from fusemix_core.runs.folder import RunFolder


def keep_data(folder: RunFolder, dataset: PairedDataset, private: bool) -> None:
    """Write data.json, which says what the data of a run are; of a run that has one, compare it.

    Args:
        folder: Of the run.
        dataset: Its data, before anything is encoded.
        private: Whether only numbers of rows and items are kept, and no digest.

    Raises:
        ArtefactError: The data have changed since the run began, or the file can't be read.
    """
    now = _facts_of(dataset, private)
    if not folder.data.exists():
        folder.write_json(folder.data, now)
        return
    try:
        before = json.loads(folder.data.read_text(encoding="utf-8"))
        differs = [k for k in {**before, **now} if before.get(k) != now.get(k)]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ArtefactError(f"{folder.data} can't be read: {error}", _HINT) from error
    if differs:
        counts = [f"{now.get(k, 0):,} {k}, not {before.get(k, 0)}" for k in differs if k != _DIGEST]
        what = "; ".join(counts) or "as many rows, but not the same"
        raise ArtefactError(
            f"The data of the run in {folder.path} have changed since it began: {what}.", _HINT
        )


_DIGEST = "sha256"
_HINT = "Choose another --out for a new run. What is encoded is not encoded again."


def _facts_of(dataset: PairedDataset, private: bool) -> dict[str, Any]:
    """The numbers of rows and items, and the digest of all content, links, splits and facts."""
    rows = {f"{name} rows": len(rows) for name, rows in dataset.splits.items()}
    counts = rows | {f"{m} items": len(items) for m, items in dataset.items.items()}
    if private:
        return counts
    digest = hashlib.sha256(dataset.links.tobytes())
    parts = [*dataset.splits.values(), *dataset.unpaired.values()]
    for part in (*parts, *(items.keys for items in dataset.items.values())):
        digest.update(part.tobytes())
    for name, fact in dataset.facts.items():
        digest.update(f"{name} {fact.digest()}".encode())
    return {**counts, _DIGEST: digest.hexdigest()}
