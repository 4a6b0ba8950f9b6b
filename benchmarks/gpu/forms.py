"""The precisions in which steps and losses are measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from fusemix_core.engine.fit import Fit
from fusemix_core.numerics import Numbers, Precision


@dataclass(frozen=True)
class Form:
    """How a step computes: its name, its `training.precision`, and whether adapters are
    compiled."""

    name: str
    numbers: Numbers
    compiled: bool = False

    @contextmanager
    def scope(self, fit: Fit, device: torch.device) -> Iterator[None]:
        """The steps of the fit are taken in this form inside, as a `Trainer` takes them."""
        fit.precision = Precision(self.numbers, device.type)
        with fit.precision.step():
            yield


FLOAT32 = Form("float32", "float32")
TF32 = Form("TF32", "tf32")
HALF = Form("half", "half")
COMPILED = Form("half, compiled", "half", compiled=True)
