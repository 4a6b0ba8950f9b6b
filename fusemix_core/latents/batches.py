"""How many items an encoder gets at once."""

from __future__ import annotations

import torch

from fusemix_core.data.media import medium
from fusemix_core.latents.cutting import SORT_BATCHES, BatchSize
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec, kind_of

GROUP = 1 << 14
"""Pooled items that are encoded before a shard may end."""
MOST_ITEMS = 1 << 18
"""Items of the largest shards: about 1 GB in float16."""


def batch_size_for(spec: EncoderSpec, given: int | None, device: torch.device) -> BatchSize:
    """The batch, by the encoder's inputs: as given, as its spec says, or its medium's default.

    Longer items than are usual come fewer at once, shorter texts more.
    """
    if exact := given or spec.batch:
        return BatchSize(exact)
    how = medium(registry.settled(spec).takes)
    items, usual = how.batch[device.type != "cpu"], how.usual_length(spec)
    return BatchSize(items, usual and items * usual, stretch=how.inline)


def group_size(spec: EncoderSpec, view: str, batch_size: int, shard: int) -> int:
    """Items that are encoded before a shard may be found complete by its bytes.

    A whole shard of pooled latents, up to `GROUP` items; of others, which can be hundreds of times
    larger, a few batches, sorted by length where that saves padding.
    """
    if kind_of(view) == "pooled":
        return min(shard, GROUP)
    how = medium(registry.settled(spec).takes)
    return batch_size * (SORT_BATCHES // 2 if how.usual_length(spec) else 1)


def shard_size(items: int) -> int:
    """Items a shard: 256 to 512 shards for the whole, each of 1,024 to 262,144 items.

    A kill costs one shard; a gather of random rows visits all of them.
    """
    most = 1 << (items // 256).bit_length()
    return min(max(most, 1024), max(GROUP, min(most // 2, MOST_ITEMS)))
