"""The correction `prior`: a small flow that draws a latent of the fixed modality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, mse_loss, normalize

from fusemix_core.context import FitContext
from fusemix_core.correction import Correction, CorrectionPairs, length_of
from fusemix_core.errors import ConfigError

_BATCH = 512
_RATE = 1e-3
_DRAWS = 20
"""Euler steps from noise to a latent."""
_WAVES = 16


class Flow(nn.Module):
    """The velocity of rectified flow (Liu et al., 2022, https://arxiv.org/abs/2209.03003): from
    noise `[n, d]` at time t to latents, given embeddings `[n, d]`."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.into = nn.Linear(2 * dim + 2 * _WAVES, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden),
                nn.Linear(hidden, hidden),
                nn.GELU(),
                nn.Linear(hidden, hidden),
            )
            for _ in range(2)
        )
        self.out = nn.Linear(hidden, dim)

    def forward(self, noisy: Tensor, rows: Tensor, time: Tensor) -> Tensor:
        """`[n, d]`; `time` is `[n, 1]`, from 0 (noise) to 1."""
        rates = torch.exp2(torch.arange(_WAVES, device=time.device) / 2)
        waves = time * rates
        x = gelu(self.into(torch.cat([noisy, rows, waves.sin(), waves.cos()], dim=1)))
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)


class PriorCorrection(Correction):
    """A latent of the fixed modality drawn for each embedding: the prior of unCLIP (Ramesh et al.,
    2022, https://arxiv.org/abs/2204.06125) at the size of an adapter, learnt from training pairs.

    Another seed draws another one. It takes a minute or more to learn.

    Args:
        steps: of training, each on 512 pairs.
        hidden: width of the network.
    """

    def __init__(self, steps: int = 1000, hidden: int = 512) -> None:
        super().__init__()
        if steps < 1 or hidden < 1:
            raise ConfigError(
                f"correction prior: steps={steps} and hidden={hidden} must be above 0."
            )
        self.options = {"steps": steps, "hidden": hidden}
        self.steps, self.hidden = steps, hidden

    def learn(self, pairs: CorrectionPairs, context: FitContext) -> Mapping[str, Tensor]:
        device, dim = context.device, pairs.rows.shape[1]
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.default_generator.manual_seed(context.seed)
            flow = Flow(dim, self.hidden).to(device)
            draw = torch.Generator().manual_seed(context.seed)
            optimiser = torch.optim.AdamW(flow.parameters(), lr=_RATE)
            for step in range(self.steps):
                picked = torch.randint(len(pairs.rows), (_BATCH,), generator=draw)
                rows = pairs.rows[picked.to(pairs.rows.device)].to(device)
                latents = _scaled(pairs.latents[picked.to(pairs.latents.device)].to(device))
                noise = torch.randn(_BATCH, dim, generator=draw).to(device)
                time = torch.rand(_BATCH, 1, generator=draw).to(device)
                found = flow(noise.lerp(latents, time), rows, time)
                loss = mse_loss(found, latents - noise)
                for group in optimiser.param_groups:
                    group["lr"] = _RATE * (1 + math.cos(math.pi * step / self.steps)) / 2
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        weights = {key.replace(".", "_"): value.half() for key, value in flow.state_dict().items()}
        return {**weights, "length": length_of(pairs.known)}

    def apply(
        self,
        rows: Tensor,
        learnt: Mapping[str, Tensor],
        seeds: Sequence[int],
        bank: Tensor | None = None,
    ) -> Tensor:
        flow = self._flow(learnt, rows.shape[1]).to(rows.device)
        x = torch.stack(
            [torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(s)) for s in seeds]
        ).to(rows.device)
        for step in range(_DRAWS):
            time = torch.full((len(rows), 1), step / _DRAWS, device=rows.device)
            x = x + flow(x, rows, time) / _DRAWS
        return normalize(x, dim=1) * learnt["length"].to(rows.device)

    def _flow(self, learnt: Mapping[str, Tensor], dim: int) -> Flow:
        with torch.device("meta"):  # so that no weights are drawn
            flow = Flow(dim, self.hidden)
        keys = {key: key.replace(".", "_") for key in flow.state_dict()}
        weights = {key: learnt[name].float() for key, name in keys.items()}
        flow.load_state_dict(weights, assign=True)
        return flow.eval()


def _scaled(latents: Tensor) -> Tensor:
    """Latents in directions only, with about unit variance per dimension."""
    return normalize(latents.float(), dim=1) * math.sqrt(latents.shape[1])
