"""One fit in several processes, each with its share of every batch's rows.

Every process draws the same order and mixes the same whole batch; then each takes its rows through
adapters and objective, and the gradients are averaged. The result is that of one process, up to
rounding. Only the first process evaluates, saves and tells; see
docs/decisions/0007-several-processes.md.
"""

from __future__ import annotations

import gc
import hashlib
import json
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from fusemix_core.devices import resolve_device
from fusemix_core.engine.randomness import stream_seed
from fusemix_core.errors import ConfigError, FusemixError
from fusemix_core.gathering import processes, rank
from fusemix_core.launch import launched

WAIT = timedelta(days=7)
"""How long a process waits for another, which may be encoding a large dataset."""

LEAVE_SECONDS = 0.2
"""The seconds that gloo's threads get to end."""

T = TypeVar("T")


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that torchrun started, where it did, and leave them at the end.

    Yields the device of this process: on a machine with GPUs one each. Processes that are joined
    already stay so. Raises `ConfigError` for a device that several processes can't train on, or
    for two processes on one GPU.
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
        # Of a task that SLURM shows one GPU only, that is number 0.
        number = launch.local_rank % max(torch.cuda.device_count(), 1)
        device = resolve_device(f"cuda:{number}")
        torch.cuda.set_device(device)
    if processes() > 1:
        yield device
        return
    # What processes tell each other of the run goes by gloo: no GPU is kept busy by waiting.
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    with _ended_by_sigterm():
        dist.init_process_group(backend, timeout=WAIT)
    number = rank()
    try:
        check_same(device.type, "device (name it: --device cpu, or --device cuda)")
        if device.type == "cuda":
            check_own(f"{platform.node()} {torch.cuda.get_device_properties(device).uuid}")
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
        # gloo's threads need the interpreter's lock to let go of their tensors; one that still
        # waits for it when the interpreter ends takes the process down ("terminate called").
        gc.collect()
        time.sleep(LEAVE_SECONDS)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends this process at once if this is the main thread: there is nothing to save yet.

    A handler in Python would wait until torch has found the other processes, and one may be gone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


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


def any_of_them(here: bool) -> bool:
    """Whether it contains in any process."""
    if processes() == 1:
        return here
    found = torch.tensor(int(here))
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return bool(found)


def check_same(value: Any, what: str) -> None:
    """Raise `FusemixError` in all processes unless each has the same value, which JSON can hold:
    they would train on different rows, or wait for each other for ever."""
    if processes() == 1:
        return
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
    own = torch.frombuffer(bytearray(digest), dtype=torch.uint8).clone()
    first = own.clone()
    dist.broadcast(first, 0)
    if any_of_them(not torch.equal(own, first)):
        raise FusemixError(
            f"The processes of this fit do not have the same {what}.",
            "Start them with the same arguments and versions, on data and a FUSEMIX_HOME that all "
            "of them see alike.",
        )


def check_own(gpu: str) -> None:
    """Raise `ConfigError` in all processes if two of them have the same GPU."""
    digest = hashlib.sha256(gpu.encode()).digest()
    own = torch.frombuffer(bytearray(digest), dtype=torch.uint8).clone()
    found = [torch.empty_like(own) for _ in range(processes())]
    dist.all_gather(found, own)
    if len({bytes(digest.tolist()) for digest in found}) < len(found):
        raise ConfigError(
            "Two processes of this fit have the same GPU.",
            "Start one for each GPU: torchrun --nproc-per-node GPUS",
        )


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


def seed_step(seed: int, step: int) -> None:
    """In several processes: global generators (dropout) that differ by process and step.

    They depend on nothing else, so that a checkpoint need not hold every process's.
    """
    if processes() > 1:
        torch.manual_seed(stream_seed(seed, f"process {rank()} step {step}"))


@torch.no_grad()
def take_from_first(modules: Iterable[nn.Module]) -> None:
    """Give the modules of every process the parameters and buffers of the first one's."""
    if processes() > 1:
        for module in modules:
            for value in module.state_dict().values():
                dist.broadcast(value, 0)
