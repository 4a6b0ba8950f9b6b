"""Keeps freed memory in the process while models run, or are trained, on the CPU."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 1 << 30


def keep_freed_memory(largest: int = _KEPT) -> None:
    """Tell glibc to keep freed blocks of up to `largest` bytes for the next use; nothing on other
    systems.

    By default each activation of a few megabytes is mapped afresh and returned to the kernel, batch
    after batch; the page faults can double the time of a small image encoder, and take a fifth of a
    training step.
    Process-wide and idempotent. Left alone, glibc keeps blocks of up to 32 MB.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another libc
        return
    mallopt(_M_MMAP_THRESHOLD, largest)
    mallopt(_M_TRIM_THRESHOLD, 2 * _KEPT - 1)
