"""Batches from process to process: the bytes of tensors and arrays in shared memory, the rest as a
pickle. Both sides are processes of one program, and each knows the other's pipe only."""

from __future__ import annotations

import io
import mmap
import os
import pickle
import tempfile
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

_ALIGNED = 64


class Shared:
    """Memory that two processes map: a file without a name, gone with the last of them.

    Args:
        descriptor: of the file, which the other process is started with. None makes one.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _file_without_name() if descriptor is None else descriptor
        self._map: mmap.mmap | None = None

    def bytes(self, size: int, *, grow: bool = False) -> Tensor:
        """The first `size`, one or more, as uint8 `[size]`; with `grow` there are as many."""
        if self._map is None or len(self._map) < size:
            if grow:
                os.ftruncate(self.descriptor, size)
            self._map = mmap.mmap(self.descriptor, os.fstat(self.descriptor).st_size)
        return torch.frombuffer(self._map, dtype=torch.uint8, count=size)

    def close(self) -> None:
        """Close the file. Mapped parts stay as long as there is a view of it."""
        self._map = None
        os.close(self.descriptor)


def _file_without_name() -> int:
    if hasattr(os, "memfd_create"):  # not bound by the size of /dev/shm
        return os.memfd_create("fusemix")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def pack(value: Any, into: Shared) -> tuple[bytes, int]:
    """(The pickle without tensors and arrays, bytes of these, which lie in `into` then)."""
    text = io.BytesIO()
    packer = _Packer(text)
    packer.dump(value)
    if packer.size:
        memory = into.bytes(packer.size, grow=True)
        for at, content in packer.parts:
            memory[at : at + len(content)].copy_(content)
    return text.getvalue(), packer.size


def unpack(text: bytes, size: int, source: Shared, *, pin: bool = False) -> Any:
    """A copy of the packed object; with `pin` its tensors are in memory that a GPU can read."""
    memory = source.bytes(size) if size else torch.empty(0, dtype=torch.uint8)
    return _Unpacker(text, memory, pin).load()


class _Packer(pickle.Pickler):
    """Puts tensors and arrays aside as `parts`: (place, uint8 `[n]`)."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.parts: list[tuple[int, Tensor]] = []
        self.size = 0

    def persistent_id(self, value: Any) -> tuple | None:
        if type(value) is Tensor and value.layout == torch.strided and not value.requires_grad:
            last = not value.is_contiguous() and _is_channels_last(value)
            flat = (value.permute(0, 2, 3, 1) if last else value).contiguous().flatten()
            return "tensor", self._put(flat.view(torch.uint8)), value.dtype, value.shape, last
        if type(value) is np.ndarray and value.dtype.kind in "biufc":
            flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
            place = self._put(torch.from_numpy(flat.copy() if not flat.flags.writeable else flat))
            return "array", place, value.dtype.str, value.shape, False
        return None

    def _put(self, content: Tensor) -> int:
        at = self.size
        self.parts.append((at, content))
        self.size += -(-len(content) // _ALIGNED) * _ALIGNED
        return at


class _Unpacker(pickle.Unpickler):
    def __init__(self, text: bytes, memory: Tensor, pin: bool) -> None:
        super().__init__(io.BytesIO(text))
        self.memory, self.pin = memory, pin

    def persistent_load(self, told: tuple) -> Tensor | np.ndarray:
        kind, at, dtype, shape, last = told
        if kind == "array":
            size = np.dtype(dtype).itemsize * prod(shape)
            return self.memory[at : at + size].numpy().view(dtype).reshape(shape).copy()
        form = torch.channels_last if last else torch.contiguous_format
        found = torch.empty(shape, dtype=dtype, pin_memory=self.pin, memory_format=form)
        flat = (found.permute(0, 2, 3, 1) if last else found).flatten().view(torch.uint8)
        flat.copy_(self.memory[at : at + len(flat)])
        return found


def _is_channels_last(value: Tensor) -> bool:
    return value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)
