"""The rows of a collection as an engine gets them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fusemix_core.search import Collection

BATCH = 2048
"""Rows at a time."""
OWN = ("key", "modality", "item")


@dataclass(frozen=True)
class Rows:
    """Some rows.

    Attributes:
        keys: content keys in hex, 32 characters.
        vectors: float32 `[n, width]`, lifted.
        fields: for each row `modality`, `item` and the columns of the data.
    """

    keys: list[str]
    vectors: np.ndarray
    fields: list[dict[str, Any]]


class Source:
    """A collection to be written elsewhere.

    Args:
        collection: it stays as it is.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.asks = list(collection.query_modalities)
        self.columns = {_free(name): kind for name, kind in collection.columns.items()}

    @property
    def facts(self) -> Mapping[str, Any]:
        """Facts that a reader of the vectors needs."""
        info = self.collection.info()
        return {"dim": info["dim"], "scorer": info["scorer"], "queries": self.asks}

    @property
    def width(self) -> int:
        """Numbers per lifted vector."""
        return next(self.rows()).vectors.shape[1]

    def __len__(self) -> int:
        return len(self.collection)

    def rows(self) -> Iterator[Rows]:
        """All rows, in batches."""
        from fusemix_core.errors import DataError

        scorer = self.collection.model.scorer
        if not len(self):
            raise DataError("The index is empty.", "Update it: fusemix index update INDEX")
        for modality in self.collection.modalities:
            keys = self.collection.keys(modality)
            for at in range(0, len(keys), BATCH):
                some = keys[at : at + BATCH]
                plain = self.collection.vectors(some)
                lifted = scorer.lift(plain, modality, self.asks, gallery=True)
                found = [
                    {"modality": one.modality, "item": one.item}
                    | {_free(name): value for name, value in one.columns.items()}
                    for one in self.collection.items(some)
                ]
                yield Rows(some, lifted.numpy(), found)


def query_vector(collection: Collection, modality: str, item: Any) -> list[float]:
    """The vector to ask an engine with, by inner product.

    Args:
        collection: from which the vectors were sent.
        modality: of the query.
        item: a text, a path, an image, …

    Example:
        table.to_table(nearest={"column": "vector", "q": query_vector(photos, "text", "a map")})
    """
    plain = collection.encode(modality, item)[None]
    asks = list(collection.query_modalities)
    return collection.model.scorer.lift(plain, modality, asks, gallery=False)[0].tolist()


def _free(name: str) -> str:
    """A column's name, unless it is one of ours."""
    return f"data_{name}" if name in (*OWN, "vector") else name
