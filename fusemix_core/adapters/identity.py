"""The `identity` adapter: the latent is the embedding."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad

from fusemix_core.interfaces import Adapter


class IdentityAdapter(Adapter):
    """Latents `[n, dim_in]` as they are: the embedding of a modality that stays fixed.

    Of another `dim_out` it is the first `dim_out` features, or all of them and zeros.
    """

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.more = dim_out - dim_in

    def forward(self, latents: Tensor) -> Tensor:
        return pad(latents, (0, self.more))
