"""A latent store of any size, generated: paired latents of two modalities, shard by shard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from fusemix_core.interfaces import PairedLatents
from fusemix_core.latents.shards import write_shard
from fusemix_core.latents.store import LatentStore

SHARD = 16_384
"""Items a shard, as in an extraction of this many."""

WIDTHS = {"image": 1536, "text": 1024}


def generate(home: Path, pairs: int, widths: Mapping[str, int] = WIDTHS) -> None:
    """Fill the latent store `home` with float16 latents of `pairs` pairs.

    The two modalities are maps of the same causes with noise. Only one shard's rows are drawn;
    the others are these with their columns turned, so that 26 GB are made at the disk's speed.
    """
    random = np.random.default_rng(0)
    causes = random.standard_normal((min(SHARD, pairs), 64), np.float32)
    for modality, width in widths.items():
        rows = causes @ random.standard_normal((64, width), np.float32) / 8
        rows = (rows + random.standard_normal(rows.shape, np.float32) / 2).astype(np.float16)
        for shard, first in enumerate(range(0, pairs, SHARD)):
            keys = keys_of(first, min(first + SHARD, pairs))
            turned = np.roll(rows[: len(keys)], shard, axis=1)
            write_shard(LatentStore(home).folder / modality / "pooled", keys, turned, {})


def keys_of(first: int, end: int) -> np.ndarray:
    """Content keys uint64 `[n, 2]` of the items `first` to `end`: scattered, and known."""
    number = np.arange(first, end, dtype=np.uint64)
    return np.stack([number * np.uint64(0x9E3779B97F4A7C15), number], axis=1)


def open_pairs(home: Path, pairs: int, widths: Mapping[str, int] = WIDTHS) -> PairedLatents:
    """The generated latents from disk; item i of one modality belongs to item i of the other."""
    store, keys = LatentStore(home), keys_of(0, pairs)
    tables = {m: store.open(m, "pooled", keys, "float16") for m in widths}
    return PairedLatents(tables, torch.arange(pairs)[:, None].repeat(1, len(widths)))
