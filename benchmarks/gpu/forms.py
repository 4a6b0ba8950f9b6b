"""The precisions in which steps and losses are measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Form:
    """How a step computes: its name, TF32 products, autocast to a half type, compiled adapters."""

    name: str
    tf32: bool = False
    half: bool = False
    compiled: bool = False

    @contextmanager
    def scope(self, device: torch.device) -> Iterator[None]:
        """All that is computed inside is computed so."""
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        try:
            with torch.autocast(device.type, torch.bfloat16, enabled=self.half):
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before


FLOAT32 = Form("float32")
TF32 = Form("TF32", tf32=True)
HALF = Form("half", tf32=True, half=True)
COMPILED = Form("half, compiled", tf32=True, half=True, compiled=True)
