"""How large a kernel map is by default, by the memory of the device that fits it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

LANDMARKS = 4_096
"""Landmarks of a modality on a CPU: a fit takes the square of them in time for each pair."""


@dataclass(frozen=True)
class Scale:
    """How many landmarks a modality has at most, and how many pairs the kernel takes at most."""

    landmarks: int
    pairs: int

    def bytes(self, modalities: int) -> int:
        """About what moments and solutions take: in float64 the products of all modalities, and
        two matrices more of each and of the pair that is being solved."""
        squares = modalities * (modalities + 1) // 2 + 2 * modalities + 2
        return 8 * squares * self.landmarks**2


SCALES = (Scale(16_384, 1_000_000), Scale(8_192, 400_000), Scale(LANDMARKS, 100_000))
"""From the largest. On a GPU of 40 TFLOP/s in float32 the first takes about a minute."""


def scale_for(device: torch.device, modalities: int) -> Scale:
    """The largest that takes half of the device's memory at most; on a CPU the smallest.

    It depends only on the kind of device, not on what is free: so the same machine gives the same
    map again.
    """
    memory = memory_of(device)
    fitting = (scale for scale in SCALES if scale.bytes(modalities) <= memory // 2)
    return next(fitting, SCALES[-1])


def memory_of(device: torch.device) -> int:
    """Bytes of a GPU's own memory; 0 for anything else."""
    if device.type != "cuda":
        return 0
    return torch.cuda.get_device_properties(device).total_memory
