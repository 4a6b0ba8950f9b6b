"""What each process does in test_latents.py."""

import torch
from fusemix_structure.objective import StructureObjective
from safetensors.torch import save_file

from fusemix_core.engine.distributed import batch_loss, own_rows
from fusemix_core.gathering import rank
from fusemix_core.interfaces import Batch

INNER = ("infonce", "soft-infonce")
"""Objectives that gather by themselves, and that do not."""


def results(name):
    """Loss and gradients of this process's rows, at full weight."""
    draw = torch.Generator().manual_seed(0)

    def drawn(width):
        return torch.randn(9, width, generator=draw, dtype=torch.float64)

    latents, embeddings = ({"a": drawn(d), "b": drawn(e)} for d, e in ((7, 5), (4, 4)))
    batch = Batch(latents, torch.arange(18).reshape(9, 1, 2))
    own = own_rows(batch)
    part = own_rows(Batch(embeddings, batch.links)).latents
    rows = {m: x.clone().requires_grad_() for m, x in part.items()}
    objective = StructureObjective(objective=name, warmup=1, rows=7).double()
    batch_loss(objective, {m: x.detach() for m, x in rows.items()}, own)  # the call without weight
    loss = batch_loss(objective, rows, own)
    loss.backward()
    return {"loss": loss.detach(), **{f"rows/{m}": x.grad for m, x in rows.items()}}


def share_latents(folder):
    found = {f"{name}/{k}": v for name in INNER for k, v in results(name).items()}
    save_file(found, folder / f"{rank()}.safetensors")
