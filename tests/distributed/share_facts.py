"""What each process does in test_facts.py."""

import torch
from distributed.three_steps import three_steps
from safetensors.torch import save_file
from torch.nn.functional import normalize

from fusemix_core.gathering import rank, total
from fusemix_core.interfaces import Objective


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


def facts_of(draw, latents, links):
    """A class, a time and a box for each row."""
    box = torch.rand(18, 1, 4, generator=draw)
    box[3] = torch.nan
    return {
        "label": torch.randint(-1, 4, (18, 1), generator=draw),
        "time": torch.rand(18, 1, generator=draw, dtype=torch.float64),
        "box": box,
    }


def results(name):
    return three_steps(OBJECTIVES[name]().double(), facts_of)


def share_facts(folder):
    found = {f"{o}/{n}": t.contiguous() for o in OBJECTIVES for n, t in results(o).items()}
    save_file(found, folder / f"{rank()}.safetensors")
