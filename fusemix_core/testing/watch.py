"""Sees what a call changes in the process around it, and puts it back."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

RANDOM, TORCH, ENVIRONMENT, LOGGING = "random state", "torch settings", "environment", "logging"

_IMPORTS_SET = {"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "CUDA_MODULE_LOADING"}
"""Variables that scientific libraries set when they are imported, which no plugin can help."""

TORCHS_OWN = "torch.__trace"
"""A logger to which torch adds a handler when it first traces a module."""


class Watch:
    """Collects, by kind, what changed during the calls made inside `with watch():`.

    What changed is put back, so that the next check sees it change again.
    """

    def __init__(self) -> None:
        self.changes: dict[str, list[str]] = {k: [] for k in (RANDOM, TORCH, ENVIRONMENT, LOGGING)}

    @contextmanager
    def __call__(self, doing: str) -> Iterator[None]:
        """Watch what happens inside; `doing` says in the report what that was."""
        things = _things()
        generators = {thing: read() for thing, (kind, read, _) in things.items() if kind == RANDOM}
        _draw()
        before = {thing: read() for thing, (_, read, _) in things.items()}
        try:
            yield
        finally:
            for thing, (kind, read, restore) in things.items():
                now = read()
                if not _same(before[thing], now):
                    self.changes[kind].append(f"{doing} changed {_what(thing, before[thing], now)}")
                    restore(before[thing])
            for thing, state in generators.items():
                things[thing][2](state)


def _draw() -> None:
    """Draw from the global generators: one that a test has just seeded would stay as it is if the
    component seeds it alike."""
    torch.rand(())
    np.random.random()  # noqa: NPY002
    random.random()  # noqa: S311


Thing = tuple[str, Callable[[], Any], Callable[[Any], object]]


def _things() -> dict[str, Thing]:
    """name → (kind, how to read it, how to put it back)."""
    things: dict[str, Thing] = {
        "torch's global generator": (RANDOM, torch.get_rng_state, torch.set_rng_state),
        "numpy's global generator": (RANDOM, np.random.get_state, np.random.set_state),
        "random's generator": (RANDOM, random.getstate, random.setstate),
        "torch's default dtype": (TORCH, torch.get_default_dtype, torch.set_default_dtype),
        "torch's default device": (TORCH, torch.get_default_device, _set_default_device),
        "torch's number of threads": (TORCH, torch.get_num_threads, torch.set_num_threads),
        "gradients being on": (TORCH, torch.is_grad_enabled, torch.set_grad_enabled),
        "torch's deterministic algorithms": (
            TORCH,
            torch.are_deterministic_algorithms_enabled,
            torch.use_deterministic_algorithms,
        ),
        "torch's matmul precision": (
            TORCH,
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
        ),
        "cuDNN's benchmark mode": (TORCH, _cudnn_benchmark, _set_cudnn_benchmark),
        "the environment": (ENVIRONMENT, _environment, _set_environment),
        "the working folder": (ENVIRONMENT, os.getcwd, os.chdir),
        "sys.path": (ENVIRONMENT, lambda: list(sys.path), _set_sys_path),
        "the warnings filters": (LOGGING, lambda: list(warnings.filters), _set_filters),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        things["torch's CUDA generator"] = (
            RANDOM,
            torch.cuda.get_rng_state,
            torch.cuda.set_rng_state,
        )
    known = [n for n, l in logging.root.manager.loggerDict.items() if isinstance(l, logging.Logger)]
    for name in ("root", *(name for name in known if name != TORCHS_OWN)):
        logger = logging.getLogger(None if name == "root" else name)
        things[f"the logger '{name}'"] = (LOGGING, _reader(logger), _restorer(logger))
    return things


def _what(thing: str, before: Any, now: Any) -> str:
    if thing == "the environment":
        names = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        return f"{thing}: {', '.join(names)}"
    small = isinstance(now, str | int | float | torch.dtype | torch.device)
    return f"{thing} from {before} to {now}" if small else thing


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, tuple):  # numpy's state holds an array
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    return a == b


def _environment() -> dict[str, str]:
    # pytest keeps the running test's name there.
    return {
        k: v for k, v in os.environ.items() if k not in _IMPORTS_SET and k != "PYTEST_CURRENT_TEST"
    }


def _set_environment(before: dict[str, str]) -> None:
    for name in _environment().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _set_sys_path(before: list[str]) -> None:
    sys.path[:] = before


def _set_filters(before: list[Any]) -> None:
    filters: Any = warnings.filters  # a list, whatever its type says
    filters[:] = before


def _set_default_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _cudnn_benchmark() -> bool:
    return torch.backends.cudnn.benchmark


def _set_cudnn_benchmark(on: bool) -> None:
    torch.backends.cudnn.benchmark = on


def _reader(logger: logging.Logger) -> Callable[[], Any]:
    return lambda: (logger.level, logger.disabled, logger.propagate, list(logger.handlers))


def _restorer(logger: logging.Logger) -> Callable[[Any], object]:
    def restore(state: Any) -> None:
        logger.level, logger.disabled, logger.propagate, logger.handlers[:] = state
        manager: Any = logging.root.manager
        manager._clear_cache()

    return restore
