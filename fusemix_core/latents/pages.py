"""Advice to the kernel about memory-mapped latents: which pages to read ahead, which to drop."""

from __future__ import annotations

import ctypes
import mmap
import sys

import numpy as np
from torch import Tensor

_RANDOM, _WILL_NEED, _DONT_NEED = 1, 3, 4
_GAP = 1 << 15
"""Bytes between two wanted rows that are read along: one read of both costs less than two."""

_MOST = 1 << 17
"""Bytes asked for at a time; Linux may cut longer requests at a device's read-ahead limit."""


def no_read_around(values: Tensor) -> None:
    """Have a page fault in the map read that page only, not megabytes around it."""
    _advise(values.data_ptr(), values.nbytes, _RANDOM)


def read_ahead(values: Tensor, rows: np.ndarray) -> None:
    """Have the sorted `rows` of the mapped `values` read from disk, without waiting for it."""
    width = values[0].nbytes
    ends = np.flatnonzero(np.diff(rows) > 1 + _GAP // width)
    firsts, lasts = rows[np.r_[0, ends + 1]], rows[np.r_[ends, len(rows) - 1]]
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        for start in range(first * width, (last + 1) * width, _MOST):
            length = min(_MOST, (last + 1) * width - start)
            _advise(values.data_ptr() + start, length, _WILL_NEED)


def drop(values: Tensor) -> None:
    """Take the map's pages out of the process's memory; they stay in the system's cache as long as
    it has room. Writes to them are lost."""
    _advise(values.data_ptr(), values.nbytes, _DONT_NEED)


def _madvise():
    if sys.platform.startswith("linux"):
        try:
            function = ctypes.CDLL(None).madvise
        except (OSError, AttributeError):
            return None
        function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        return function
    return None


_system = _madvise()


def _advise(address: int, length: int, advice: int) -> None:
    """Advice may be refused: it changes how fast things go, and nothing else."""
    if _system is not None:
        into_page = address % mmap.PAGESIZE
        _system(address - into_page, length + into_page, advice)
