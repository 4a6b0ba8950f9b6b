"""Adapters: the trained modules between latents and embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self, TypeGuard

from torch import Tensor, nn

from fusemix_core.padded import Padded, as_rows, as_tokens


class Adapter(nn.Module, ABC):
    """The trained module of one modality: latents `[n, dim_in]` → embeddings `[n, dim_out]`.

    Embeddings leave it without normalisation. Constructed as `Adapter(dim_in, dim_out, **options)`,
    if the options are plain values: they are all that a saved model contains beside the weights,
    and are remembered as `options`.
    """

    options: dict[str, Any]

    uses: tuple[str, ...] = ()
    """`("tokens",)` of a `TokenAdapter`. The `ComponentSpec` says the same."""

    def __new__(cls, *dims: int, **options: Any) -> Self:
        adapter = super().__new__(cls)
        vars(adapter)["options"] = options
        return adapter

    @abstractmethod
    def forward(self, latents: Tensor) -> Tensor: ...

    def prepare(self, latents: Tensor) -> None:  # noqa: B027  most need nothing
        """Take what is needed from latents of training items, `[n, dim_in]`, before training."""

    def start_from(self, closed_form: Adapter) -> None:
        """Take over a map fitted in closed form, so that both give the same embeddings."""
        raise NotImplementedError(f"{type(self).__name__} can't start from a closed-form map")


class TokenAdapter(Adapter):
    """An adapter of items that have several latents each (tokens, frames, places): it embeds each
    one, then pools.

    `dim_in` is the width of one token. Latents come as `Padded`, values `[n, T, dim_in]` of any
    T ≥ 1, whatever the view: items may differ in length, and a missing one has no tokens. The
    values of padding have no part in the result. A mixed item has the positions that either of the
    two it was made of has.

    Example:
        class TokenMean(TokenAdapter):
            def __init__(self, dim_in, dim_out):
                super().__init__()
                self.out = torch.nn.Linear(dim_in, dim_out)

            def tokens(self, latents):
                return Padded(self.out(latents.filled()), latents.mask)

            def pool(self, tokens, latents):
                count = tokens.mask.sum(dim=1, keepdim=True).clamp(min=1)
                return tokens.filled().sum(dim=1) / count
    """

    uses = ("tokens",)

    @abstractmethod
    def tokens(self, latents: Padded) -> Padded:
        """The embedded tokens, values `[n, T', dim_out]`, for pooling and for objectives that
        compare tokens. T' depends on T only."""

    @abstractmethod
    def pool(self, tokens: Padded, latents: Padded) -> Tensor:
        """Embeddings `[n, dim_out]` of what `tokens(latents)` gave; finite for an item that has
        none."""

    # What an adapter is called with depends on its kind: see `input_of`.
    def forward(self, latents: Padded) -> Tensor:  # pyrefly: ignore[bad-override]
        return self.pool(self.tokens(latents), latents)


def takes_tokens(adapter: object) -> TypeGuard[TokenAdapter | type[TokenAdapter]]:
    """Whether an adapter, or its class, is a `TokenAdapter`."""
    kind = adapter if isinstance(adapter, type) else type(adapter)
    return issubclass(kind, TokenAdapter)


def input_of(adapter: nn.Module, latents: Tensor | Padded) -> Tensor | Padded:
    """Latents of any view in the form that an adapter takes: `as_tokens`, or `as_rows`."""
    return as_tokens(latents) if takes_tokens(adapter) else as_rows(latents)
