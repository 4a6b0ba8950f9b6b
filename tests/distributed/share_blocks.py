"""What each process does in test_blocks.py."""

from dataclasses import replace

import torch
from distributed.share_fits import BASE, latents
from safetensors.torch import save_file

from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.errors import FusemixError
from fusemix_core.gathering import rank
from fusemix_core.interfaces import FitContext


class OnDisk:
    """A table that is not held in memory."""

    def __init__(self, table):
        self.table, self.dim = table, table.dim
        self.shape = (table.dim,)

    def __len__(self):
        return len(self.table)

    def rows(self, index):
        return self.table.rows(index)


def fitted(on_disk, change=None):
    train, validation = latents()
    if on_disk:
        tables = {m: OnDisk(t) for m, t in train.tables.items()}
        train, validation = replace(train, tables=tables), replace(validation, tables=tables)
    if change is not None:
        train = train.select(change)
    found = GradientAligner().fit(train, validation, BASE, FitContext())
    return {f"{m}/{n}": t for m, a in found.items() for n, t in a.state_dict().items()}


def share_blocks(folder):
    """The process with the number `on_disk` reads its tables from disk, the other holds them."""
    for on_disk in range(2):
        save_file(fitted(rank() == on_disk), folder / f"{on_disk}-{rank()}.safetensors")


def share_other_rows(folder):
    """The second process lost a row that the first has."""
    rows = torch.arange(60 - rank())
    try:
        fitted(False, rows)
    except FusemixError as error:
        (folder / f"{rank()}.txt").write_text(error.message)
