"""What each process does in test_facts.py."""

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import normalize

from fusemix_core.aligners.alignment import Alignment
from fusemix_core.config import Training
from fusemix_core.engine.state import TrainState, train_step
from fusemix_core.gathering import rank, total
from fusemix_core.interfaces import Batch, FitContext, Objective
from fusemix_core.mixups.fusemix import FuseMixMixup


class SameClass(Objective):
    """Rows of one class, by all rows: those mixed of two classes belong to both."""

    uses = ("facts",)

    def forward(self, step):
        first, second = (normalize(x, dim=1) for x in step.embeddings.values())
        label = step.facts["label"]
        pairs = label[:, None, :, None] == label[None, :, None, :]
        same = (pairs & (label >= 0)[:, None, :, None]).any(dim=3).any(dim=2)
        return -((first @ second.T).log_softmax(dim=1) * same).sum() / same.sum()


class OwnTimes(Objective):
    """The embeddings are drawn to a time and a box, each process by its own rows."""

    uses = ("facts",)

    def forward(self, step):
        time, box = step.own.facts["time"].mean(dim=1), step.own.facts["box"].mean(dim=1)
        wanted = torch.cat([time[:, None], box.nan_to_num()[:, :2].double()], dim=1)
        own = sum((x - wanted).square().sum() for x in step.own.embeddings.values())
        return total(own) / len(step.links)


OBJECTIVES = {"all rows": SameClass, "own rows": OwnTimes}


def results(name):
    """Three steps on batches of 18 rows with a class, a time and a box each, mixed to nine."""
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
        box = torch.rand(18, 1, 4, generator=draw)
        box[3] = torch.nan
        facts = {
            "label": torch.randint(-1, 4, (18, 1), generator=draw),
            "time": torch.rand(18, 1, generator=draw, dtype=torch.float64),
            "box": box,
        }
        metrics = train_step(state, Batch(latents, links, facts), FuseMixMixup(), lr=0.1)
        losses.append(metrics["loss"])
    found = {f"{m}/{n}": p for m, a in adapters.items() for n, p in a.state_dict().items()}
    return {"loss": torch.tensor(losses), **found}


def share_facts(folder):
    found = {f"{o}/{n}": t.contiguous() for o in OBJECTIVES for n, t in results(o).items()}
    save_file(found, folder / f"{rank()}.safetensors")
