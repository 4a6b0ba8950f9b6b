"""The shared space of a fused model: the order of its dimensions, and vectors to be stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.codes import CodeType, coded
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.interfaces import Scorer
from fusemix_core.measured import Prefix
from fusemix_core.numerics import exact

Form = Literal["query", "gallery"]
"""Which side of a search a vector is for, where the scorer tells the two apart."""


@exact()
def rotation_of(embeddings: Mapping[str, Tensor]) -> Tensor:
    """The rotation that orders the dimensions of a space by how much of the embeddings is in them.

    The principal axes of all modalities' embeddings together, each modality with equal weight,
    about the origin: of all orthonormal bases, the first k of these keep most of the embeddings'
    squared length. As all are kept, nothing is lost: cosines stay as they are.

    Args:
        embeddings: modality → unit-norm `[n, d]`, such as those of the training items.

    Returns:
        float32 `[d, d]`, orthogonal: `rows @ rotation` has the dimensions in order.
    """
    doubles = [rows.double() for rows in embeddings.values() if len(rows)]
    moment = torch.stack([rows.T @ rows / len(rows) for rows in doubles]).sum(0)
    axes = torch.linalg.eigh(moment).eigenvectors.flip(1)
    largest = axes.abs().argmax(dim=0, keepdim=True)
    return (axes * axes.gather(0, largest).sign()).float()


@dataclass(frozen=True)
class Space:
    """A shared space.

    Attributes:
        dim: its width.
        modalities: those that share it.
        scorer: how embeddings are compared.
        rotation: what orders its dimensions (see `rotation_of`); None if that is not known.
    """

    dim: int
    modalities: tuple[str, ...]
    scorer: Scorer
    rotation: Tensor | None = None

    def prefix(self, dim: int) -> Prefix:
        """The first `dim` dimensions in order, and the scorer there.

        Raises:
            ConfigError: the model does not know an order, has fewer dimensions, or has a scorer
                that only works on whole embeddings.
        """
        basis, scorer = self._basis(dim)
        return Prefix(basis, scorer.score)

    def _basis(self, dim: int) -> tuple[Tensor, Scorer]:
        if not 1 <= dim <= self.dim:
            raise ConfigError(
                f"The model's embeddings have {self.dim} dimensions, so {dim} can't be taken.",
                f"Choose from 1 to {self.dim}.",
            )
        if self.rotation is None:
            raise ConfigError(
                "This model does not know which of its dimensions matter most.",
                "It was saved by an older fusemix. Fit it again; or take all dimensions; or\n"
                "model.rotation = fusemix_core.space.rotation_of({modality: training embeddings})",
            )
        basis = self.rotation[:, :dim].contiguous()
        return basis, self.scorer.mapped(basis)

    def convert(
        self,
        rows: Tensor,
        modality: str,
        *,
        form: Form | None = None,
        against: Sequence[str] | None = None,
        dim: int | None = None,
        dtype: CodeType = "float32",
    ) -> Tensor:
        """Embeddings as they are stored or sent; see `FusedModel.convert`."""
        scorer = self.scorer
        if dim is not None:
            basis, scorer = self._basis(dim)
            rows = normalize(rows @ basis.to(rows.device), dim=1)
        if form is None:
            return coded(rows, dtype)
        if form not in ("query", "gallery"):
            raise UnknownNameError.of("form of vectors", form, ("query", "gallery"))
        against = self.modalities if against is None else tuple(against)
        lifted = scorer.lift(rows, modality, against, form == "gallery")
        if lifted.shape[1] > rows.shape[1] and dtype in ("int8", "binary"):
            raise ConfigError(
                f"The scorer adds {lifted.shape[1] - rows.shape[1]} columns to vectors in the form "
                f"'{form}', and {dtype} can't hold these.",
                "Take dtype float16; or no form, and rank again with the whole embeddings.",
            )
        return coded(lifted, dtype)

    def direction(self, query: str | None, target: str | None) -> tuple[str, str]:
        """Which modality asks and which is searched; of two, naming one is enough.

        Raises:
            ConfigError: they are not named, and the scores depend on it.
        """
        for modality in (query, target):
            if modality is not None:
                self._check_known(modality)
        if query is not None and target is not None:
            return query, target
        if query == target or len(self.modalities) > 2:
            a, b = self.modalities[:2]
            raise ConfigError(
                "Scores depend on which modality asks and which is searched: name them.",
                f"model.similarity(queries, gallery, query='{b}', target='{a}')",
            )
        a, b = self.modalities
        other = {a: b, b: a}
        if query is not None:
            return query, other[query]
        assert target is not None  # or they would be equal
        return other[target], target

    def embeddings(self, rows: Tensor | ArrayLike, modality: str) -> Tensor:
        """`[n, dim]`, as given if it is a tensor. Raises `ConfigError` for another shape."""
        if not isinstance(rows, Tensor):
            rows = _as_tensor(rows, modality)
        if rows.dim() != 2 or rows.shape[1] != self.dim:
            raise ConfigError(
                f"Embeddings of {modality} must be [n, {self.dim}]; these are {list(rows.shape)}.",
                f"model.encode('{modality}', [...]) gives such.",
            )
        return rows

    def _check_known(self, modality: str) -> None:
        if modality not in self.modalities:
            raise UnknownNameError.of("modality of this model", modality, self.modalities)


def _as_tensor(rows: ArrayLike, modality: str) -> Tensor:
    """float32, of an array or rows that are arrays, tensors or lists of numbers."""
    try:
        if isinstance(rows, list | tuple):
            rows = [np.asarray(row.cpu() if isinstance(row, Tensor) else row) for row in rows]
        return torch.from_numpy(np.asarray(rows).astype(np.float32))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"Embeddings of {modality} can't be read from a {type(rows).__name__}: {error}.",
            f"model.encode('{modality}', [...]) gives such.",
        ) from error
