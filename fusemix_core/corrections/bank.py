"""The correction `bank`: projection on latents that exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.context import FitContext
from fusemix_core.correction import Correction, CorrectionPairs, length_of
from fusemix_core.errors import ConfigError
from fusemix_core.samples import even_sample


class BankCorrection(Correction):
    """The mean of latents in a bank, weighted by `softmax(cosine / temperature)`, at their mean
    length: DeCap's projection (Li et al., 2023, https://arxiv.org/abs/2303.03032).

    The result lies among latents that exist. The bank is the generator's own if it has one
    (`Generator.bank`), else an even sample of the fixed modality's training latents.

    Args:
        temperature: the smaller, the nearer to the single nearest latent. With 0.05, a bank of some
            hundred names already draws embeddings away from the right one.
        size: latents to keep, as float16.
    """

    def __init__(self, temperature: float = 0.02, size: int = 4096) -> None:
        super().__init__()
        if temperature <= 0 or size < 1:
            raise ConfigError(
                f"correction bank: temperature={temperature} must be above 0, and size={size} 1 or "
                "more."
            )
        self.options = {"temperature": temperature, "size": size}
        self.temperature, self.size = temperature, size

    def learn(self, pairs: CorrectionPairs, context: FitContext) -> Mapping[str, Tensor]:
        kept = even_sample(len(pairs.known), self.size)
        return {"bank": pairs.known[kept.to(pairs.known.device)].half()}

    def apply(
        self,
        rows: Tensor,
        learnt: Mapping[str, Tensor],
        seeds: Sequence[int],
        bank: Tensor | None = None,
    ) -> Tensor:
        kept = (learnt["bank"] if bank is None else bank).to(rows.device).float()
        unit = normalize(kept, dim=1)
        shares = (rows @ unit.T / self.temperature).softmax(dim=1)  # [n, b]
        return normalize(shares @ unit, dim=1) * length_of(kept)
