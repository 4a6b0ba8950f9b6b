"""What each process does in test_hammer.py."""

import torch
from distributed.three_steps import three_steps
from fusemix_hammer.objective import HammerObjective
from safetensors.torch import save_file

from fusemix_core.gathering import rank, total
from fusemix_core.interfaces import Followers
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


def doubtful(draw, latents, links):
    """Some rows lack their image, some are doubtful."""
    links[[1, 6], :, 0] = -1
    latents["image"][[1, 6]] = 0
    return {"trust": torch.rand(18, generator=draw).round(decimals=1)[:, None]}


def results(name):
    objective = OBJECTIVES[name]().double()
    return three_steps(objective, doubtful) | objective.state_dict()


def share_hammer(folder):
    found = {f"{o}/{n}": t.contiguous() for o in OBJECTIVES for n, t in results(o).items()}
    save_file(found, folder / f"{rank()}.safetensors")
