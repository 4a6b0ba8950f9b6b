"""The adapter `token-projectors`: tokens are projected first and pooled then."""

from __future__ import annotations

import math

from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter
from fusemix_freeze_align.projectors import PROJECTORS, projector

FIRST = ("pool", "skip", *PROJECTORS)
POOLINGS = ("mean", "max")


class TokenProjectors(Adapter):
    """z = pooled(pool_t token(x_t)) + cls(x_1) for latents `[n, T · dim_in]` (arXiv 2409.19425).

    token, pooled: a projector, `patch`, `mlp` or `identity`, of each token and of what is pooled,
    by `pooling` (`mean`, `max`) over the tokens that are not all zero. first: what is done with the
    first token: it is pooled with the others (`pool`), left out (`skip`), or left out and added
    through a projector of its own (`patch`, `mlp`), as the cls token of a picture is. The widths
    change in `token`, or if that is an identity in `pooled`. Latents of one row an item are items
    of one token.

    Raises `ConfigError` for options out of range, and where both are identities of two widths.
    """

    uses = ("tokens",)
    takes_tokens = True

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

    def forward(self, latents: Tensor) -> Tensor:
        return self._both(latents)[0]

    def with_tokens(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings, and the projected tokens: before `pooled`, and without a first one that
        is set apart. Raises `ConfigError` where these are not as wide as the embeddings."""
        embeddings, tokens = self._both(latents)
        if tokens.shape[2] != embeddings.shape[1]:
            raise ConfigError(
                f"Tokens are {tokens.shape[2]} wide and embeddings {embeddings.shape[1]}.",
                "A loss on tokens needs a projector of tokens: --set adapter.token=patch",
            )
        return embeddings, tokens

    def _both(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        x = latents.unflatten(1, (-1, self.dim_in))  # [n, T, d]
        own = x[:, 1:] if self.apart else x
        mask = (own != 0).any(dim=2)
        projected = self.token(own[mask])  # padding is not projected
        tokens = projected.new_zeros(*mask.shape, projected.shape[1])
        tokens[mask] = projected
        embeddings = self.pooled(self._pool(tokens, mask))
        if self.cls is not None:
            embeddings = embeddings + self.cls(x[:, 0])
        return embeddings, tokens

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """`[n, e]`; zero for an item without tokens."""
        if self.pooling == "mean":
            return tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        if not mask.shape[1]:
            return tokens.sum(dim=1)
        most = tokens.masked_fill(~mask[:, :, None], -math.inf).amax(dim=1)
        return most.masked_fill(~mask.any(dim=1, keepdim=True), 0)
