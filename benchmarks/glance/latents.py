"""The latents of clips: of frames and sounds by quick encoders, of images by a slow one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from fusemix_glance.films import windows
from PIL import Image
from torch import Tensor

from benchmarks.glance.clips import MOMENTS, SIDE, Clip, Sounds, build, frame, read_sounds, tile
from benchmarks.photographs import SPLITS, Pool, load_encoder, read_pools
from fusemix_core.data.media import Audio
from fusemix_core.interfaces import Encoder

FIRST, SOUND, LOOK = "efficientnet-lite0-128", "speech-embedding", "efficientnet-lite2"
SEED = 0
_BATCH = 32


@dataclass(frozen=True)
class Split:
    """The clips of a split and their latents.

    Attributes:
        clips: n of them.
        first: float16 `[n, 30 · 4, d]`: the quarters of each frame by the quick encoder.
        heard: float32 `[n, 30, d]`.
        looks: float32 `[images, d]`: each photograph and figure by the slow encoder.
        seconds: of one frame, one second of sound and one image, by encoder.
    """

    clips: list[Clip]
    first: Tensor
    heard: Tensor
    looks: Tensor
    seconds: dict[str, float]


def read(data: Path, counts: dict[str, int], cache: Path | None) -> tuple[dict[str, Split], list]:
    """The splits with so many clips each, and the names of the classes.

    Args:
        data: the folder of the sets.
        counts: split → clips.
        cache: a folder that latents are kept in.
    """
    pools, names = read_pools(data)
    found = {}
    for number, split in enumerate(SPLITS):
        sounds = read_sounds(data, split)
        draw = np.random.default_rng([SEED, number])
        clips = build(pools[split], sounds, names, counts[split], draw)
        kept = None if cache is None else cache / f"{split}-{counts[split]}.pt"
        if kept is not None and kept.exists():
            parts = torch.load(kept, weights_only=True)
        else:
            parts = _encoded(pools[split], sounds, clips)
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                torch.save(parts, kept)
        found[split] = Split(clips, **parts)
        print(f"{split}: {len(clips)} clips, {parts['seconds']}", flush=True)
    return found, names


def _encoded(pool: Pool, sounds: Sounds, clips: Sequence[Clip]) -> dict:
    tiles = [tile(path) for path in (*pool.photographs, *pool.figures)]
    looks, look_seconds = encoded(load_encoder(LOOK), tiles, "pooled")
    rate = [Audio(samples, 16_000) for samples in sounds.samples]
    heard, sound_seconds = encoded(load_encoder(SOUND), rate, "pooled")
    frames = (frame(tiles, numbers) for clip in clips for numbers in clip.images)
    first, first_seconds = encoded(load_encoder(FIRST), frames, "grid")
    return {
        "first": first.unflatten(0, (-1, MOMENTS)).flatten(1, 2),
        "heard": torch.stack([heard[torch.from_numpy(clip.sounds)] for clip in clips]),
        "looks": looks,
        "seconds": {"first": first_seconds, "sound": sound_seconds, "look": look_seconds},
    }


def encoded(
    encoder: Encoder, items: Iterable[Image.Image | Audio], view: str
) -> tuple[Tensor, float]:
    """The latents of items, of a grid the means of its windows, and CPU seconds of one."""
    items, parts, spent, count = iter(items), [], 0.0, 0
    while batch := list(islice(items, _BATCH)):
        start = time.process_time()
        latents = encoder.encode(encoder.collate(batch), view)
        spent += time.process_time() - start
        count += len(batch)
        parts.append(windows(latents, SIDE).half() if view == "grid" else latents)
    return torch.cat(parts), spent / count
