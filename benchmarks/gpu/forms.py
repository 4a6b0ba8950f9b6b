"""The precisions in which steps and losses are measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fusemix_core.numerics import Numbers, Precision


@dataclass(frozen=True)
class Form:
    """How a step computes: its name, its `training.precision`, and whether adapters are
    compiled."""

    name: str
    numbers: Numbers
    compiled: bool = False

    def on(self, device: torch.device) -> Precision:
        """The precision of a fit."""
        return Precision(self.numbers, device.type)


FLOAT32 = Form("float32", "float32")
TF32 = Form("TF32", "tf32")
HALF = Form("half", "half")
COMPILED = Form("half, compiled", "half", compiled=True)
