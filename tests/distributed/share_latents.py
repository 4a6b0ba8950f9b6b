"""What each process does in test_latents.py."""

import torch
from fusemix_structure.objective import StructureObjective
from safetensors.torch import save_file

from fusemix_core.gathering import Rows, rank
from fusemix_core.step import Step

INNER = ("infonce", "soft-infonce")
"""Objectives that gather by themselves, and that do not."""


def results(name):
    """Loss and gradients of this process's rows, at full weight."""
    draw = torch.Generator().manual_seed(0)

    def drawn(width):
        return torch.randn(9, width, generator=draw, dtype=torch.float64)

    latents, embeddings = ({"a": drawn(d), "b": drawn(e)} for d, e in ((7, 5), (4, 4)))
    links = torch.arange(18).reshape(9, 1, 2)
    own = Rows.split(9).own
    rows = {m: x[own].clone().requires_grad_() for m, x in embeddings.items()}
    behind = {m: x[own] for m, x in latents.items()}
    objective = StructureObjective(objective=name, warmup=1, rows=7).double()
    without = {m: x.detach() for m, x in rows.items()}
    objective(Step.of(without, links[own], latents=behind))  # the call without weight
    loss = objective(Step.of(rows, links[own], latents=behind))
    loss.backward()
    return {"loss": loss.detach(), **{f"rows/{m}": x.grad for m, x in rows.items()}}


def share_latents(folder):
    found = {f"{name}/{k}": v for name in INNER for k, v in results(name).items()}
    save_file(found, folder / f"{rank()}.safetensors")
