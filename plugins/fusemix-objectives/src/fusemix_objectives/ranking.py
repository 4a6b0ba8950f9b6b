"""The `multiple-negatives` objective: sentence-transformers' ranking loss on two modalities."""

from __future__ import annotations

import torch
from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_objectives.pairs import WithTemperature

FORMS = ("one-way", "symmetric", "symmetric-joint", "all-joint")


class MultipleNegatives(WithTemperature):
    """mean_i [ logsumexp over row i's candidates - s q_i·p_i ], s = 1 / temperature.

    Candidates, for queries q (the first modality) and documents p (the second):

        one-way           s q_i·p_j for all j (Henderson et al., 2017)
        symmetric         that and s p_i·q_j, a logsumexp of each and their mean: `infonce`
        symmetric-joint   both in one logsumexp
        all-joint         also s q_i·q_j and s p_i·p_j for j ≠ i, in one (GTE, arXiv 2308.03281)

    hardness adds that many times the cosine, without gradient, to the other documents' logits
    s q_i·p_j (Lan et al., 2025, arXiv 2505.13418). Raises `ConfigError` for an unknown form.
    """

    def __init__(
        self,
        *,
        form: str = "all-joint",
        temperature: float = 0.05,
        learnable: bool = False,
        hardness: float = 0.0,
    ) -> None:
        super().__init__(temperature, learnable)
        if form not in FORMS or hardness < 0:
            raise ConfigError(
                f"multiple-negatives can't have form='{form}' and hardness={hardness}.",
                f"A form is one of {', '.join(FORMS)}; hardness is 0 or more.",
            )
        self.form, self.hardness = form, hardness

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        cosines = x @ y.T
        right = cosines.diagonal() / self.temperature
        forward = cosines / self.temperature
        if self.hardness:
            others = cosines.detach().clone().fill_diagonal_(0)
            forward = forward + self.hardness * others
        blocks = [forward]
        if self.form != "one-way":
            blocks.append(cosines.T / self.temperature)
        if self.form == "all-joint":
            itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
            for rows in (x, y):
                own = rows @ rows.T / self.temperature
                blocks.append(own.masked_fill(itself, -torch.inf))
        if self.form.endswith("joint"):
            every = torch.cat(blocks, dim=1).logsumexp(dim=1)
        else:
            every = torch.stack([block.logsumexp(dim=1) for block in blocks]).mean(dim=0)
        return (every - right).mean()
