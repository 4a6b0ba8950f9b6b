"""The latents of clips: of frames and sounds by quick encoders, of images by a slow one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.glance.clips import RATE, Clip, Sounds, build, read_sounds, tile
from benchmarks.photographs import SPLITS, Pool, load_encoder, read_pools
from fusemix_core.data.media import Audio
from fusemix_core.interfaces import Encoder, as_rows

FIRST, SOUND, LOOK = "efficientnet-lite0-64", "speech-embedding", "efficientnet-lite2"
SEED = 0
FIGURES, PHOTOGRAPHS = 50, 24
"""Of a split, and of a split and class, at most: each is seen by the slow encoder."""
_BATCH = 32


@dataclass(frozen=True)
class Split:
    """The clips of a split and their latents. A frame's windows are its images, so that each image
    is encoded once.

    Attributes:
        clips: n of them.
        first: float32 `[images, d]`: each photograph and figure by the quick encoder.
        heard: float32 `[seconds, d]`: each second of sound.
        looks: float32 `[images, d]`: each photograph and figure by the slow encoder.
        seconds: of CPU for one image, one second of sound and one image, by encoder.
    """

    clips: list[Clip]
    first: Tensor
    heard: Tensor
    looks: Tensor
    seconds: dict[str, float]


def read(
    data: Path, counts: dict[str, int], cache: Path | None
) -> tuple[dict[str, Split], list[str]]:
    """The splits with so many clips each, and the names of the classes.

    Args:
        data: the folder of the sets.
        counts: split → clips.
        cache: a folder that latents are kept in.
    """
    pools, names = read_pools(data, FIGURES, PHOTOGRAPHS)
    found = {}
    for number, split in enumerate(SPLITS):
        sounds = read_sounds(data, split)
        draw = np.random.default_rng([SEED, number])
        clips = build(pools[split], sounds, names, counts[split], draw)
        kept = None if cache is None else cache / f"{split}.pt"
        if kept is not None and kept.exists():
            parts = torch.load(kept, weights_only=True)
        else:
            parts = _encoded(pools[split], sounds)
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                torch.save(parts, kept)
        found[split] = Split(clips, **parts)
        print(f"{split}: {len(clips)} clips, {parts['seconds']}", flush=True)
    return found, names


def _encoded(pool: Pool, sounds: Sounds) -> dict[str, Any]:
    tiles = [tile(path) for path in (*pool.photographs, *pool.figures)]
    heard = [Audio(samples, RATE) for samples in sounds.samples]
    items = {"first": (FIRST, tiles), "heard": (SOUND, heard), "looks": (LOOK, tiles)}
    found: dict[str, Any] = {"seconds": {}}
    for name, (encoder, own) in items.items():
        found[name], found["seconds"][encoder] = encoded(load_encoder(encoder), own)
    return found


def encoded(encoder: Encoder, items: Sequence[Image.Image | Audio]) -> tuple[Tensor, float]:
    """The pooled latents of items, and CPU seconds of one."""
    parts, start = [], time.process_time()
    for first in range(0, len(items), _BATCH):
        batch = encoder.collate(items[first : first + _BATCH])
        parts.append(as_rows(encoder.encode(batch, "pooled")))
    return torch.cat(parts), (time.process_time() - start) / len(items)
