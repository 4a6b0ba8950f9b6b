"""Items that a user gives in a list, to be encoded at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np
from torch import Tensor

from fusemix_core.data.media import Audio, decode
from fusemix_core.errors import DataError
from fusemix_core.latents.preparing import Source

_SHOWN = 200


class GivenItems(Source):
    """The items of a list, decoded as they are needed.

    items: what the medium `takes` decodes: texts; paths, bytes, images; `Audio`, …
    """

    def __init__(self, modality: str, items: list[Any], takes: str) -> None:
        self.modality, self.items, self.takes = modality, items, takes

    def __len__(self) -> int:
        return len(self.items)

    def load(self, i: int, sample_rate: int | None = None) -> Any:
        """Item i, decoded. Raises `DataError`."""
        return decode(self.items[i], self.takes, sample_rate)

    def describe(self, i: int) -> str:
        """The text or the path itself, else what it is."""
        item = self.items[i]
        shown = isinstance(item, str | os.PathLike)
        return str(item)[:_SHOWN] if shown else f"a {type(item).__name__}"

    def reject(self, i: int, error: Exception) -> NoReturn:
        """Raise the error for an item that can't be encoded, with its number."""
        known = isinstance(error, DataError)
        reason = error.message if known else f"{type(error).__name__}: {error}"
        raise DataError(
            f"{self.modality} item {i} can't be encoded: {reason}", error.hint if known else ""
        ) from error


def as_list(modality: str, items: Iterable[Any]) -> list[Any]:
    """The items as a list; TypeError for one item where a list belongs."""
    from PIL.Image import Image

    lone = isinstance(items, str | bytes | os.PathLike | Mapping | Audio | Image | Tensor)
    lone = lone or (isinstance(items, np.ndarray) and items.dtype.kind not in "USO")
    lone = lone or (isinstance(items, tuple) and len(items) == 2 and isinstance(items[1], int))
    if lone or not isinstance(items, Iterable):
        raise TypeError(
            f"encode takes a list of items, not one {type(items).__name__}: "
            f"model.encode('{modality}', [item])"
        )
    return list(items)
