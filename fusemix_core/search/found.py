"""Records of items, as a collection returns them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fusemix_core.registry import registry


@dataclass(frozen=True)
class Found:
    """An item of a collection.

    Attributes:
        key: Its content key in hex, 32 characters.
        score: The scorer's, of the query and the item; None without a query.
        modality: The item's.
        item: The text itself, or the path to show to people.
        columns: Column of the data → its value in the first row of the item; None if it is empty.
        percentile: How many of 100 random training queries score lower with random items of the
            collection; None if that isn't known.
    """

    key: str
    score: float | None
    modality: str
    item: str
    columns: Mapping[str, Any]
    percentile: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**vars(self), "columns": dict(self.columns)}


def caption_column(columns: Mapping[str, str]) -> str | None:
    """The column of the data that usually has captions.

    Args:
        columns: As `Collection.columns`.

    Returns:
        Its name, None if there is none.
    """
    text = registry.modality("text")
    usual = ("text", *(text.columns if text else ()))
    return next((name for name in usual if name in columns), None)
