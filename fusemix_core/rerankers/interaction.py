"""`interaction`: late interaction of tokens (ColBERT, Khattab & Zaharia, arXiv:2004.12832)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.modules import Modules
from fusemix_core.padded import Padded
from fusemix_core.reranker import Reranker

_TOKENS = 8_192
"""Tokens at most that whitening is learnt from."""
_FLOOR = 0.05
"""A direction of less than this share of the largest spread is not scaled up further."""
_NEVER = -1e9
_SHARPEST = 50.0
"""Beyond, its powers of e would overflow."""


class Interaction(Reranker):
    """How well each token fits the tokens of the other side, as a weighted mean.

    The tokens of each side are whitened and go through a linear map of their own. A token's fit is
    a soft maximum of its cosines with the tokens of the other side. The score is the weighted mean
    of the fits of one side, plus that of the other, times a learnt scale. The sharpness of the
    maximum and the weight of a token, by a linear map of it, are learnt. (ColBERT has a hard
    maximum, of the query's tokens only, and equal weights.)

    Args:
        inputs: as in `Reranker`.
        width: of a token after the map.
        kept: principal directions that whitening keeps.
        dropout: share of a token's values that are dropped before the map, in training.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self,
        inputs: Mapping[str, int],
        *,
        width: int = 128,
        kept: int = 128,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(inputs)
        if min(width, kept) < 1 or not 0 <= dropout < 1:
            raise ConfigError(
                f"The re-ranker 'interaction' has width={width}, kept={kept}, dropout={dropout}.",
                "width and kept are 1 or more; dropout is from 0 to below 1.",
            )
        widths = [min(kept, d) for d in inputs.values()]
        self.whitened = Modules(
            Whitening(d, k) for d, k in zip(inputs.values(), widths, strict=True)
        )
        self.maps = Modules(nn.Linear(k, width) for k in widths)
        self.gates = Modules(nn.Linear(k, 1) for k in widths)
        self.dropout = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.tensor(10.0).log())
        self.sharpness = nn.Parameter(torch.tensor(10.0).log())

    def prepare(self, tokens: Mapping[str, Tensor]) -> None:
        for modality, whitening in zip(self.inputs, self.whitened, strict=True):
            whitening.learn(tokens[modality])

    def forward(self, latents: Mapping[str, Padded]) -> Tensor:
        (first, own, seen), (second, other, there) = self._sides(latents)
        near = self._near(first @ second.transpose(1, 2))  # [n, S, T]
        of_second = self._fit(torch.einsum("nst,ns->nt", near, seen), seen.sum(1)[:, None])
        of_first = self._fit(torch.einsum("nst,nt->ns", near, there), there.sum(1)[:, None])
        return self.scale.exp() * ((of_first * own).sum(dim=1) + (of_second * other).sum(dim=1))

    def table(self, latents: Mapping[str, Padded]) -> Tensor:
        (first, own, seen), (second, other, there) = self._sides(latents)
        near = self._near(torch.einsum("nsd,mtd->nmst", first, second))
        of_second = self._fit(torch.einsum("nmst,ns->nmt", near, seen), seen.sum(1)[:, None, None])
        of_first = self._fit(torch.einsum("nmst,mt->nms", near, there), there.sum(1)[:, None])
        of_first = torch.einsum("nms,ns->nm", of_first, own)
        return self.scale.exp() * (of_first + torch.einsum("nmt,mt->nm", of_second, other))

    def _sides(self, latents: Mapping[str, Padded]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of each side: tokens of unit norm `[n, T, width]`, weights `[n, T]`, and 1 for each
        token that is there, `[n, T]`."""
        found = []
        for k, modality in enumerate(self.inputs):
            mask = latents[modality].mask
            tokens = self.dropout(self.whitened[k](latents[modality].filled()))
            gates = self.gates[k](tokens)[..., 0].masked_fill(~mask, _NEVER)
            unit = normalize(self.maps[k](tokens), dim=2)
            found.append((unit, gates.softmax(dim=1), mask.to(unit.dtype)))
        return found

    def _near(self, cosines: Tensor) -> Tensor:
        """e to the power of cosines times the sharpness, the terms of a soft maximum."""
        return (self._sharp() * cosines).exp()

    def _fit(self, total: Tensor, count: Tensor) -> Tensor:
        """The soft maximum of `count` terms whose sum is `total`: between their mean and the
        largest."""
        return (total / count.clamp(min=1)).clamp_min(1e-30).log() / self._sharp()

    def _sharp(self) -> Tensor:
        return self.sharpness.exp().clamp(max=_SHARPEST)


class Whitening(nn.Module):
    """The principal directions of tokens, each brought to the same spread.

    Args:
        width: of a token.
        kept: directions.
    """

    def __init__(self, width: int, kept: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("map", torch.eye(width, kept))

    @torch.no_grad()
    def learn(self, tokens: Tensor) -> None:
        """Take the directions from tokens `[n, d]`. Columns are standardised before."""
        if len(tokens) > _TOKENS:
            tokens = tokens[torch.linspace(0, len(tokens) - 1, _TOKENS).long()]
        mean, spread = tokens.mean(dim=0), tokens.std(dim=0, correction=0)
        scale = torch.where(spread > 1e-6 * spread.max(), 1 / spread.clamp_min(1e-30), 0.0)
        rows = (tokens - mean) * scale
        variances, directions = torch.linalg.eigh(rows.T @ rows / max(len(rows), 1))
        kept = self.map.shape[1]
        spreads = variances.flip(0)[:kept].clamp_min(0).sqrt()
        spreads = spreads.clamp_min(_FLOOR * spreads[0]).clamp_min(1e-6)
        self.mean.copy_(mean)
        self.map.copy_(scale[:, None] * directions.flip(1)[:, :kept] / spreads)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[…, kept]`."""
        return (tokens.to(self.mean.dtype) - self.mean) @ self.map
