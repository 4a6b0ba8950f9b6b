"""The adapter `token-projectors`: tokens are projected first and pooled then."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Padded, TokenAdapter
from fusemix_freeze_align.projectors import PROJECTORS, projector

FIRST = ("pool", "skip", *PROJECTORS)
POOLINGS = ("mean", "max")


class TokenProjectors(TokenAdapter):
    """z = pooled(pool_t token(x_t)) + cls(x_1) for tokens x `[n, T, dim_in]` (arXiv 2409.19425).

    token, pooled: a projector, `patch`, `mlp` or `identity`, of each token and of what is pooled,
    by `pooling` (`mean`, `max`) over an item's own tokens. first: what is done with the
    first token: it is pooled with the others (`pool`), left out (`skip`), or left out and added
    through a projector of its own (`patch`, `mlp`), as the cls token of a picture is. The widths
    change in `token`, or if that is an identity in `pooled`. Latents of one row per item are items
    of one token.

    Raises `ConfigError` for options out of range, and where both are identities of two widths.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        *,
        token: str = "patch",
        first: str = "pool",
        pooling: str = "mean",
        pooled: str = "identity",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        known = (*PROJECTORS, "identity")
        if token not in known or pooled not in known or first not in FIRST:
            raise ConfigError(
                f"token-projectors can't have token={token}, pooled={pooled}, first={first}.",
                f"token and pooled are of {', '.join(known)}; first of {', '.join(FIRST)}.",
            )
        if pooling not in POOLINGS or not 0 <= dropout < 1:
            raise ConfigError(
                f"token-projectors can't have pooling={pooling}, dropout={dropout}.",
                f"pooling is one of {', '.join(POOLINGS)}; dropout is from 0 to below 1.",
            )
        between = dim_in if token == "identity" else dim_out
        self.dim_in, self.pooling, self.apart = dim_in, pooling, first != "pool"
        self.token = projector(token, dim_in, between, dropout)
        self.pooled = projector(pooled, between, dim_out, dropout)
        self.cls = projector(first, dim_in, dim_out, dropout) if first in PROJECTORS else None

    def tokens(self, latents: Padded) -> Padded:
        """The projected tokens: before `pooled`, and without a first one that is set apart."""
        start = 1 if self.apart else 0
        values, mask = latents.values[:, start:], latents.mask[:, start:]
        # A GPU would have to be asked for how many there are; an exported network can't ask.
        if values.device.type != "cpu" or torch.compiler.is_compiling():
            return Padded(self.token(Padded(values, mask).filled()), mask)
        projected = self.token(values[mask])  # padding is not projected
        tokens = projected.new_zeros(*mask.shape, projected.shape[1])
        tokens[mask] = projected
        return Padded(tokens, mask)

    def pool(self, tokens: Padded, latents: Padded) -> Tensor:
        embeddings = self.pooled(self._pooled(tokens))
        if self.cls is not None:
            embeddings = embeddings + self.cls(latents.filled()[:, 0])
        return embeddings

    def _pooled(self, tokens: Padded) -> Tensor:
        """`[n, e]`; zero for an item without tokens."""
        mask = tokens.mask
        if self.pooling == "mean":
            return tokens.filled().sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        if not mask.shape[1]:
            return tokens.filled().sum(dim=1)
        most = tokens.filled(-math.inf).amax(dim=1)
        return most.masked_fill(~mask.any(dim=1, keepdim=True), 0)
