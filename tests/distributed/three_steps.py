"""Three training steps by an objective, on batches of 18 rows that are mixed to nine."""

import torch
from torch import nn

from fusemix_core.aligners.alignment import Alignment
from fusemix_core.config import Training
from fusemix_core.engine.state import TrainState, train_step
from fusemix_core.interfaces import Batch, FitContext
from fusemix_core.mixups.fusemix import FuseMixMixup


def three_steps(objective, drawn):
    """The losses, and the weights after them. `drawn(draw, latents, links)` changes these, and
    gives the facts of a batch."""
    draw = torch.Generator().manual_seed(0)
    adapters = {m: nn.Linear(d, 3).double() for m, d in (("image", 5), ("text", 4))}
    for adapter in adapters.values():
        for parameter in adapter.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=draw))
    objective.start(adapters, None, None, FitContext())
    state = TrainState.new(Alignment(adapters, objective), Training(), seed=0)
    losses = []
    for _ in range(3):
        latents = {
            m: torch.randn(18, a.in_features, generator=draw, dtype=torch.float64)
            for m, a in adapters.items()
        }
        links = torch.arange(36).reshape(18, 1, 2)
        facts = drawn(draw, latents, links)
        metrics = train_step(state, Batch(latents, links, facts), FuseMixMixup(), lr=0.1)
        losses.append(metrics["loss"])
    found = {f"{m}/{n}": p for m, a in adapters.items() for n, p in a.state_dict().items()}
    return {"loss": torch.tensor(losses), **found}
