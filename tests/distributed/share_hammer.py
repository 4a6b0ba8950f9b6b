"""What each process does in test_hammer.py."""

import torch
from fusemix_hammer.objective import HammerObjective
from safetensors.torch import save_file
from torch import nn

from fusemix_core.aligners.alignment import Alignment
from fusemix_core.config import Training
from fusemix_core.engine.state import TrainState, train_step
from fusemix_core.gathering import rank, total
from fusemix_core.interfaces import Batch, FitContext, Followers
from fusemix_core.mixups.fusemix import FuseMixMixup
from fusemix_core.objectives.infonce import InfoNCE


class GathersItself(InfoNCE):
    """Another loss, that is given its own process's rows."""

    uses = ("trust", "adapters")

    def start(self, adapters, train, validation, context):
        self.followers = Followers(adapters, 0.5)

    def forward(self, step):
        self.followers.follow(step.adapters)
        own, trust = step.own, step.own.trust.double()
        averaged = own.through(self.followers)
        pulls = [(x - averaged[m]).square().sum(1) @ trust for m, x in own.embeddings.items()]
        return super().forward(step) + total(sum(pulls))


OBJECTIVES = {
    "hammer": lambda: HammerObjective(queue=20, momentum=0.5, warmup=2),
    "gathers itself": GathersItself,
}


def results(name):
    """Three steps on batches of 18 rows, some doubtful, mixed to nine."""
    draw = torch.Generator().manual_seed(0)
    adapters = {m: nn.Linear(d, 3).double() for m, d in (("image", 5), ("text", 4))}
    for adapter in adapters.values():
        for parameter in adapter.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=draw))
    objective = OBJECTIVES[name]().double()
    objective.start(adapters, None, None, FitContext())
    state = TrainState.new(Alignment(adapters, objective), Training(), seed=0)
    losses = []
    for _ in range(3):
        latents = {
            m: torch.randn(18, a.in_features, generator=draw, dtype=torch.float64)
            for m, a in adapters.items()
        }
        links = torch.arange(36).reshape(18, 1, 2)
        links[[1, 6], :, 0] = -1
        latents["image"][[1, 6]] = 0
        trust = torch.rand(18, generator=draw).round(decimals=1)
        metrics = train_step(
            state, Batch(latents, links, {"trust": trust[:, None]}), FuseMixMixup(), lr=0.1
        )
        losses.append(metrics["loss"])
    found = {f"{m}/{n}": p for m, a in adapters.items() for n, p in a.state_dict().items()}
    return {"loss": torch.tensor(losses), **found, **objective.state_dict()}


def share_hammer(folder):
    found = {f"{o}/{n}": t.contiguous() for o in OBJECTIVES for n, t in results(o).items()}
    save_file(found, folder / f"{rank()}.safetensors")
