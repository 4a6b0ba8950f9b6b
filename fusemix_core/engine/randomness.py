"""Random streams that depend only on the seed and leave the user's own generators as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch
from torch import Tensor

from fusemix_core.interfaces import PairedLatents


def stream_seed(seed: int, name: str) -> int:
    """A 63-bit seed for one named use, so that uses don't share random numbers."""
    digest = blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def stream(seed: int, name: str) -> torch.Generator:
    """A CPU generator for one named use of the seed."""
    return torch.Generator().manual_seed(stream_seed(seed, name))


def at_most(latents: PairedLatents, rows: int, seed: int) -> PairedLatents:
    """`latents`, or a seeded sample of that many of its rows if it has more."""
    if len(latents) <= rows:
        return latents
    sample = torch.randperm(len(latents), generator=stream(seed, "validation"))[:rows]
    return latents.select(sample.sort().values)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global generators (dropout, initial weights) seeded inside, restored after."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[_index(device)] if cuda else []):
        torch.default_generator.manual_seed(stream_seed(seed, "model"))
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(stream_seed(seed, "model"))
        yield


def global_states(device: torch.device) -> dict[str, Tensor]:
    """The states of the global generators that a fit on `device` draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_global_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Undo what was drawn since `global_states` gave these states."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index
