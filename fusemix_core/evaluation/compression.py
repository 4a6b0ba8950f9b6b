"""What embeddings lose by fewer dimensions, and by fewer bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from fusemix_core.codes import DTYPES, CodeType, coded, decoded
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.evaluation.directions import KS, ranked
from fusemix_core.interfaces import Evaluator
from fusemix_core.measured import Measured, Score
from fusemix_core.sections import Section, Share, Table


@dataclass(frozen=True)
class Stored:
    """A way to store embeddings: so many leading dimensions, None for all, in a type."""

    dim: int | None
    dtype: CodeType

    def bytes(self, whole: int) -> int:
        """Of one item."""
        dim = self.dim or whole
        bits = {"float32": 32, "float16": 16, "int8": 8, "binary": 1}[self.dtype]
        return -(-dim * bits // 8)


class CompressionEvaluator(Evaluator):
    """Retrieval by the first dimensions of the embeddings, and by their codes in fewer bits.

    Every type is measured with every number of dimensions, and with all of them. Scores are those
    of the model's scorer on the rows that the stored codes stand for.

    Args:
        dims: numbers of leading dimensions.
        dtypes: `float16`, `int8`, `binary`.

    Example:
        `fusemix eval runs/first --dims 64,128 --dtype int8,binary`
    """

    def __init__(
        self, *, dims: Sequence[int] = (64, 128), dtypes: Sequence[CodeType] = ("int8", "binary")
    ) -> None:
        for dtype in dtypes:
            if dtype not in DTYPES:
                raise UnknownNameError.of("type of codes", dtype, DTYPES)
        if any(type(dim) is not int or dim < 1 for dim in dims):
            raise ConfigError(f"dims is {list(dims)}; each is a number of dimensions, 1 or more.")
        self.dims, self.dtypes = tuple(dims), tuple(dtypes)

    def __call__(self, data: Measured) -> dict[str, Any]:
        """Recalls in percent, means over all directions, of each way to store embeddings."""
        whole = next(iter(data.embeddings.values())).shape[1]
        ways = [Stored(d, t) for d in (None, *self.dims) for t in ("float32", *self.dtypes)]
        return {
            "unit": "percent",
            "scorer": data.scorer,
            "dims": whole,
            "stored": [
                {"dims": way.dim or whole, "dtype": way.dtype, "bytes": way.bytes(whole)}
                | self._recalls(data, way)
                for way in dict.fromkeys(ways)
            ],
        }

    def _recalls(self, data: Measured, way: Stored) -> dict[str, float]:
        rows, score = _as_stored(data, way)
        found = ranked(rows, data.links, score, device=data.device, of=data.added)
        recalls = {k: [d.metrics()[f"r{k}"] for d in found] for k in KS}
        return {f"r{k}": float(np.mean(values)) for k, values in recalls.items()}

    def sections(self, metrics: Mapping[str, Any], data: Measured) -> list[Section]:
        """One table, a row for each way."""
        rows = [
            [s["dims"], s["dtype"], s["bytes"], *(Share(s[f"r{k}"]) for k in KS)]
            for s in metrics["stored"]
        ]
        columns = ["dimensions", "type", "bytes an item", *(f"R@{k}" for k in KS)]
        text = (
            f"Retrieval on the {data.split} split by fewer dimensions or bits, in percent, means "
            f"of all directions, scored with {metrics['scorer']}."
        )
        return [Section("Smaller embeddings", text, tables=[Table(columns, rows)])]


def _as_stored(data: Measured, way: Stored) -> tuple[dict[str, Tensor], Score]:
    """The rows that are left of the embeddings, by modality, and what scores them."""
    rows, score = dict(data.embeddings), data.score
    if way.dim is not None:
        if data.prefix is None:
            raise ConfigError("There is no model here that knows the order of its dimensions.")
        prefix = data.prefix(way.dim)
        rows, score = {m: prefix.of(own) for m, own in rows.items()}, prefix.score
    if way.dtype != "float32":
        rows = {m: decoded(coded(own, way.dtype), own.shape[1]) for m, own in rows.items()}
    return rows, score
