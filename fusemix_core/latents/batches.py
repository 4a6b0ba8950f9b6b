"""How many items an encoder gets at once."""

from __future__ import annotations

import torch

from fusemix_core.latents.pipeline import SORT_BATCHES, BatchSize
from fusemix_core.latents.returned import kind_of
from fusemix_core.specs import EncoderSpec

_BATCH = {"text": (64, 256), "image": (32, 128), "audio": (16, 64), "file": (16, 64)}
"""Default batch by what the encoder takes: on the CPU, on an accelerator."""
_USUAL = {"text": 256, "audio": 10}
"""Length by which the default batch is meant, in characters (64 tokens) and seconds: longer items
come fewer at once, shorter texts more."""


def batch_size_for(spec: EncoderSpec, given: int | None, device: torch.device) -> BatchSize:
    """The batch for what the encoder takes: as given, as its spec says, or the default."""
    if exact := given or spec.batch:
        return BatchSize(exact)
    items = _BATCH[spec.takes][device.type != "cpu"]
    if spec.takes == "text":
        return BatchSize(items, items * _USUAL["text"], stretch=True)
    if spec.takes == "audio":
        return BatchSize(items, items * _USUAL["audio"] * (spec.sample_rate or 16_000))
    return BatchSize(items)


def group_size(spec: EncoderSpec, view: str, batch_size: int, shard: int) -> int:
    """Items that are encoded before a shard may be found complete by its bytes.

    A whole shard of pooled latents; of others, which can be hundreds of times larger, a few
    batches, sorted by length where that saves padding.
    """
    if kind_of(view) == "pooled":
        return shard
    return batch_size * (SORT_BATCHES // 2 if spec.takes in ("text", "audio") else 1)


def shard_size(items: int) -> int:
    """Items a shard: about 256 shards for the whole, each of 1,024 to 16,384 items.

    A kill costs one shard; a gather of random rows visits all of them.
    """
    return min(max(1 << (items // 256).bit_length(), 1024), 16384)
