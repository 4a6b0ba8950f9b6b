"""What each process does in test_objectives.py: its rows of each case, and what came of them."""

import torch
from batches import batch_of
from safetensors.torch import save_file

from fusemix_core.gathering import processes, rank
from fusemix_core.numerics import Precision
from fusemix_core.objectives import ring
from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.objectives.multi_positive import MultiPositive
from fusemix_core.objectives.siglip import SigLIP
from fusemix_core.step import Step

OBJECTIVES = {
    "infonce": lambda: InfoNCE(temperature=0.07),
    "infonce at 0.001": lambda: InfoNCE(temperature=0.001),
    "infonce, masked": lambda: InfoNCE(temperature=0.5, mask_shared=True),
    "multi-positive": lambda: MultiPositive(temperature=0.07),
    "siglip": lambda: SigLIP(),
    "siglip, masked": lambda: SigLIP(scale=100.0, shared="masked"),
    "siglip, several positives": lambda: SigLIP(shared="positive"),
}
PARTNERS_ELSEWHERE = ("multi-positive", "siglip, several positives")
"""Objectives that need gathered rows."""
BATCHES = {
    "one row": {"n": 1},
    "two rows": {"n": 2},
    "a ragged size": {"n": 31},
    "mixed rows": {"n": 20, "sources": 2},
    "four modalities with gaps": {"n": 23, "modalities": 4, "gaps": True},
    "float32": {"n": 40, "dtype": torch.float32},
    "in half": {"n": 41, "dtype": torch.float32},
}


def results(objective, batch, share):
    """Loss and gradients of the rows `share` of a batch, by name."""
    embeddings, links = batch_of(**BATCHES[batch])
    module = OBJECTIVES[objective]().to(next(iter(embeddings.values())).dtype)
    rows = {m: x.detach()[share].requires_grad_() for m, x in embeddings.items()}
    step = Step.of(rows, links[share])
    if batch == "in half":
        step.precision = Precision("half", "cuda")  # which a CPU takes to be no gain
    loss = module(step)
    loss.backward()
    found = {"loss": loss.detach()}
    for kind, named in (("rows", rows.items()), ("own", module.named_parameters())):
        for name, x in named:
            found[f"{kind}/{name}"] = torch.zeros_like(x) if x.grad is None else x.grad
    return found


def unequal(n):
    """This process's rows: the first ones get twice as many as there would be of equal parts."""
    step = max(2 * n // processes(), 1)
    return slice(min(rank() * step, n), n if rank() == processes() - 1 else (rank() + 1) * step)


WAYS = {"gathered": 2 << 30, "ring": 0}
"""The bytes up to which rows are gathered."""


def share_objectives(folder):
    found = {}
    for way, most in WAYS.items():
        ring.GATHER_BYTES = most
        for objective in OBJECTIVES:
            sent = Sent.count
            for batch, options in BATCHES.items():
                for name, value in results(objective, batch, unequal(options["n"])).items():
                    found[f"{way}/{objective}/{batch}/{name}"] = value
            goes_round = way == "ring" and objective not in PARTNERS_ELSEWHERE
            assert (Sent.count > sent) == goes_round, (way, objective)
    save_file(found, folder / f"{rank()}.safetensors")


class Sent(ring._Sent):
    """Counts the blocks that go round."""

    count = 0

    def __init__(self, block):
        super().__init__(block)
        Sent.count += 1


ring._Sent = Sent
