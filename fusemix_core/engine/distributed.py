"""One fit in several processes, each with its share of every batch's rows.

Every process draws the same order and mixes the same whole batch; then each takes its rows through
adapters and objective, and DistributedDataParallel averages the gradients. The result is that of
one process, up to rounding. The first process alone evaluates, saves and tells; see
docs/decisions/0007-several-processes.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fusemix_core.devices import resolve_device
from fusemix_core.engine.randomness import stream_seed
from fusemix_core.errors import ConfigError, FusemixError
from fusemix_core.interfaces import Adapter, Batch, Objective
from fusemix_core.launch import launched
from fusemix_core.objectives.gathering import Rows, processes, rank

WAIT = timedelta(days=7)
"""How long a process waits for another, which may be encoding a large dataset."""

T = TypeVar("T")


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that torchrun started, where it did, and leave them at the end.

    Yields the device of this process: on a machine with GPUs one each. Processes that are joined
    already stay so. Raises `ConfigError` for a device that several processes can't train on, or
    more processes than GPUs.
    """
    launch = launched()
    if launch.processes == 1 and processes() == 1:
        yield device
        return
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"Several processes can't train on '{device.type}'.", "Take cpu or cuda (--device)."
        )
    if device.type == "cuda":
        device = resolve_device(f"cuda:{launch.local_rank}")
        torch.cuda.set_device(device)
    if processes() > 1:
        yield device
        return
    # What processes tell each other of the run goes by gloo: no GPU is kept busy by waiting.
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=WAIT)
    number = rank()
    try:
        yield device
    except RuntimeError as error:
        if number == 0:
            raise
        raise FusemixError(
            f"{type(error).__name__}: {error}",
            "If the first process stopped too, what it says is the reason.",
        ) from error
    finally:
        dist.destroy_process_group()


def from_first(compute: Callable[[], Any]) -> Any:
    """What `compute` gives in the first process, as JSON brings it to the others."""
    if processes() == 1:
        return compute()
    value = compute() if rank() == 0 else None
    text = bytearray(json.dumps(value).encode())
    size = torch.tensor([len(text)])
    dist.broadcast(size, 0)
    content = torch.frombuffer(text, dtype=torch.uint8).clone().resize_(int(size))
    dist.broadcast(content, 0)
    return json.loads(bytes(content.tolist()))


def wait_for_all() -> None:
    """Return when every process has called this."""
    if processes() > 1:
        dist.all_reduce(torch.zeros(1))


def in_turn(work: Callable[[], T]) -> T:
    """`work` in the first process, and when that is done in the others."""
    if rank():
        wait_for_all()
        return work()
    done = work()
    wait_for_all()
    return done


class BatchLoss(nn.Module):
    """Adapters and objective as one module: a process's rows of latents and links → the loss."""

    def __init__(self, adapters: Mapping[str, Adapter], objective: Objective) -> None:
        super().__init__()
        self.modalities = tuple(adapters)
        self.adapters = nn.ModuleList(adapters.values())
        self.objective = objective

    def forward(self, latents: Mapping[str, Tensor], links: Tensor) -> Tensor:
        embeddings = {
            m: adapter(latents[m])
            for m, adapter in zip(self.modalities, self.adapters, strict=True)
        }
        if not self.objective.gathers:
            rows = Rows(len(links), links.device)
            embeddings = {m: rows.gather(x) for m, x in embeddings.items()}
            links = rows.gather(links)
        return self.objective(embeddings, links)


def divided_loss(
    adapters: Mapping[str, Adapter], objective: Objective
) -> Callable[[Batch], Tensor] | None:
    """The loss of a whole batch, of which each process computes its share; None in one process.

    Parameters and buffers become those of the first process, here; what changes the buffers later
    (statistics of a batch norm) is each process's own.
    """
    if processes() == 1:
        return None
    # A modality that no row of a batch has gets no gradient in that step, as in one process.
    module = DistributedDataParallel(
        BatchLoss(adapters, objective), broadcast_buffers=False, find_unused_parameters=True
    )

    def loss(batch: Batch) -> Tensor:
        own = own_rows(batch)
        return module(own.latents, own.links)

    return loss


def own_rows(batch: Batch) -> Batch:
    """This process's rows of a batch that every process holds: nearly equal parts, in order."""
    n, count = len(batch.links), processes()
    part = slice(n * rank() // count, n * (rank() + 1) // count)
    return Batch({m: x[part] for m, x in batch.latents.items()}, batch.links[part])


def seed_step(seed: int, step: int) -> None:
    """In several processes: global generators (dropout) that differ by process and step.

    They depend on nothing else, so that a checkpoint need not hold every process's.
    """
    if processes() > 1:
        torch.manual_seed(stream_seed(seed, f"process {rank()} step {step}"))


@torch.no_grad()
def take_from_first(modules: Mapping[str, nn.Module]) -> None:
    """Give the modules of every process the parameters and buffers of the first one's."""
    if processes() > 1:
        for module in modules.values():
            for value in module.state_dict().values():
                dist.broadcast(value, 0)
