"""Digests: of content (128 bits, the key of an item), of files and folders, of model weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_CHUNK = 1 << 22


def content_key(data: bytes) -> bytes:
    """The 16-byte BLAKE2b digest by which an item is known everywhere."""
    return hashlib.blake2b(data, digest_size=16).digest()


def file_sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hex, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def path_sha256(path: str | Path) -> str:
    """Of a file its SHA-256; of a folder one digest over the names and contents of its files."""
    path = Path(path)
    if path.is_file():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        digest.update(bytes.fromhex(file_sha256(file)))
    return digest.hexdigest()


def digest_modules(modules: Iterable[nn.Module]) -> str:
    """One SHA-256 over name, dtype, shape and bytes of every parameter and buffer, in order."""
    import torch

    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            if not isinstance(tensor, torch.Tensor):
                continue
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return digest.hexdigest()
