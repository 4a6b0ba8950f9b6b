"""Tables on the device that trains."""

from __future__ import annotations

from dataclasses import replace

import torch

from fusemix_core.adapters.rows import VALUES
from fusemix_core.interfaces import LatentTable, PairedLatents, ResidentLatents
from fusemix_core.paired import joined, load


def on_device(
    train: PairedLatents, validation: PairedLatents, device: torch.device
) -> tuple[PairedLatents, PairedLatents]:
    """Both splits with their tables on the device, if they fit in half of its free memory.

    Otherwise, and on the CPU, the tables stay as they are and batches are gathered from them.
    """
    if device.type != "cuda":
        return train, validation
    tables = {id(t): t for d in (train, validation) for t in d.tables.values()}
    free, _ = torch.cuda.mem_get_info(device)
    if sum(_bytes_there(t) for t in tables.values()) > free // 2:
        return train, validation
    moved = {i: _moved(t, device) for i, t in tables.items()}
    train, validation = (
        replace(d, tables={m: moved[id(t)] for m, t in d.tables.items()})
        for d in (train, validation)
    )
    return train, validation


def _bytes_there(table: LatentTable) -> int:
    """What `_moved` takes on the device."""
    if isinstance(table, ResidentLatents):
        return table.latents.nbytes
    return getattr(table, "nbytes", len(table) * table.dim * 4)


def _moved(table: LatentTable, device: torch.device) -> ResidentLatents:
    """The table on the device, in the type it is stored in; one on disk goes there in chunks, so
    that it need not fit here."""
    if isinstance(table, ResidentLatents):
        return table.to(device)
    chunks = torch.arange(len(table)).split(max(1, VALUES // table.dim))
    return joined([load(table, ids).to(device) for ids in chunks])
