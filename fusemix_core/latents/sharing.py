"""One encoder for several threads, and in forked processes.

A frozen encoder is not safe in threads by itself: libraries set a flag on the model for the time of
a call, a tokenizer can't be borrowed by two threads, a runtime has one request. So each encoder has
locks, made here. Decoding, and collating what has no tokenizer, go on outside them.
"""

from __future__ import annotations

import os
import threading

import torch

from fusemix_core.interfaces import Encoder

_forked = _settled = False


class Locks:
    """The locks of one encoder: `encode` for its network and runtime, `collate` for its tokenizer.

    A copy, or what a pickle gives, has locks of its own.
    """

    def __init__(self) -> None:
        self.encode = threading.RLock()
        self.collate = threading.RLock()

    def __reduce__(self) -> tuple[type[Locks], tuple[()]]:
        return Locks, ()


def locks_of(encoder: Encoder) -> Locks:
    """The locks of an encoder in this process.

    A forked process has others than its parent: a thread that did not come along may hold those.
    """
    return vars(encoder).setdefault(f"_locks {os.getpid()}", Locks())


def forked() -> bool:
    """Whether this process was forked from one that had imported this module."""
    return _forked


def settle() -> None:
    """Have torch compute in one thread in a forked process.

    The other threads of its parent did not come along, and torch would wait for them forever.
    Elsewhere nothing happens.
    """
    global _settled
    if _forked and not _settled:
        torch.set_num_threads(1)
        _settled = True


def _after_fork() -> None:
    global _forked, _settled
    _forked, _settled = True, False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
