"""Whether pairs can be fitted to."""

from __future__ import annotations

from collections.abc import Collection

from fusemix_core.errors import DataError
from fusemix_core.interfaces import PairedLatents


def check_links(train: PairedLatents, fixed: Collection[str] = ()) -> None:
    """Raise `DataError` for a modality that no training pair has and that is not fixed: it could
    not be learnt."""
    if not len(train):
        raise DataError("The training split is empty.", "Check how the data are split.")
    for modality in train.modalities:
        if modality not in fixed and not len(train.linked(modality)):
            raise DataError(
                f"No training pair has an item of the modality '{modality}'.",
                "Leave the modality out, or check its column and how the data are split.",
            )
