"""Bytes that are appended to a file without a name and mapped: what they take is not the process's
memory."""

from __future__ import annotations

import mmap
import tempfile
from typing import BinaryIO

import numpy as np

from fusemix_core.home import home


class Spilled:
    """A growing file in the home folder, gone with the last array that is mapped from it."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        self.size = 0

    def add(self, parts: list[np.ndarray]) -> None:
        """Append arrays. Raises OSError if the disk is full or the folder can't be written."""
        if self._file is None:
            home().mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=home())  # noqa: SIM115  closed when mapped
        for part in parts:
            self._file.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
            self.size += part.nbytes
        self._file.flush()

    def mapped(self) -> np.ndarray:
        """uint8: all bytes so far, read-only. Ends the writing."""
        if self._file is None:
            return np.zeros(0, np.uint8)
        with self._file as file:
            found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._file = None
        return np.frombuffer(found, np.uint8)
