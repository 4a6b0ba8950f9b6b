"""One pass over the pairs of a set, however many there are."""

from __future__ import annotations

import torch

from fusemix_core.aligners.moments import Moments
from fusemix_core.interfaces import PairedLatents

_CHUNK = 4096


def moments_of(pairs: PairedLatents, device: torch.device) -> Moments:
    """The moments of the latents as they are; in memory are a few thousand rows."""
    moments = Moments(list(pairs.dims.values()), device)
    for rows in torch.arange(len(pairs)).split(_CHUNK):
        batch = pairs.batch(rows, device)
        moments.update(list(batch.latents.values()), batch.present())
    return moments
