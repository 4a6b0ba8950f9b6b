"""The `linear` adapter: one affine map, also the form that closed-form maps take."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter


class LinearAdapter(Adapter):
    """y = x Wᵀ + b: latents `[n, dim_in]` → embeddings `[n, dim_out]`.

    `bias=False` leaves out b. Weights are drawn as `torch.nn.Linear` draws them.
    """

    def __init__(self, dim_in: int, dim_out: int, *, bias: bool = True) -> None:
        super().__init__()
        self.out = nn.Linear(dim_in, dim_out, bias=bias)

    def forward(self, latents: Tensor) -> Tensor:
        return self.out(latents)

    def start_from(self, closed_form: Adapter) -> None:
        """Copy another linear adapter of the same widths.

        Raises `ConfigError` for a map that this one can't express.
        """
        if not isinstance(closed_form, LinearAdapter):
            raise ConfigError(
                f"A linear adapter can't start from a {type(closed_form).__name__}.",
                "Its map does more than one affine step. Take the adapter 'kernel', or no start.",
            )
        theirs = closed_form.out
        if theirs.weight.shape != self.out.weight.shape:
            raise ConfigError(
                f"A linear adapter {tuple(self.out.weight.shape)} can't start from a map of shape "
                f"{tuple(theirs.weight.shape)}.",
                "Leave the recipe's `dim` unset, so that it is taken from the closed-form map.",
            )
        if self.out.bias is None and theirs.bias is not None and bool(theirs.bias.any()):
            raise ConfigError(
                "The closed-form map has an offset, but the linear adapter has none.",
                "Set adapter.bias=true.",
            )
        with torch.no_grad():
            self.out.weight.copy_(theirs.weight)
            if self.out.bias is not None:
                self.out.bias.zero_() if theirs.bias is None else self.out.bias.copy_(theirs.bias)
