"""Adapters compiled into one graph each for the steps of a fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from fusemix_core.engine.plan import Plan
from fusemix_core.gathering import Rows
from fusemix_core.interfaces import takes_tokens
from fusemix_core.numerics import Precision

AUTO_STEPS = 10_000
"""Steps from which adapters are compiled on a GPU: compiling takes time, too."""


class Compiling:
    """Compiled forms of adapters, which take the place of these inside `steps`. Validation and
    everything else use the adapters as they are.

    Each form is tried on zeros first, forward and backward; an adapter that can't be compiled in
    one graph stays as it is, and so does one that takes tokens.

    Args:
        adapters: those that are trained, by modality, on their device.
        dims: the widths of their latents.
        plan: how large the batches are.
        precision: of the fit.
        tell: is called with a note about an adapter that stays as it is.
        backend: of `torch.compile`.
    """

    def __init__(
        self,
        adapters: Mapping[str, nn.Module],
        dims: Mapping[str, int],
        plan: Plan,
        precision: Precision,
        tell: Callable[[str], None],
        backend: str = "inductor",
    ) -> None:
        self.forms: list[tuple[nn.Module, Callable]] = []
        own = Rows.split(plan.training.batch_size).own
        rows, self.precision = own.stop - own.start, precision
        for modality, adapter in adapters.items():
            if takes_tokens(adapter) or not any(p.requires_grad for p in adapter.parameters()):
                continue
            form = torch.compile(adapter._call_impl, fullgraph=True, backend=backend)
            try:
                self._try_out(adapter, form, rows, dims[modality])
            except Exception as error:  # a compiler raises anything
                why = next(iter(str(error).strip().splitlines()), type(error).__name__)
                tell(f"The {modality} adapter isn't compiled: {why[:200]}")
            else:
                self.forms.append((adapter, form))

    def _try_out(self, adapter: nn.Module, form: Callable, rows: int, dim: int) -> None:
        like = next(adapter.parameters())
        zeros = torch.zeros(rows, dim, dtype=like.dtype, device=like.device)
        devices = [like.device] if like.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), self.precision.step():
            with self.precision.adapters():
                found = form(zeros)
            found.float().sum().backward()
        for parameter in adapter.parameters():
            parameter.grad = None

    @contextmanager
    def steps(self) -> Iterator[None]:
        """The scope of a training step."""
        for adapter, form in self.forms:
            adapter._compiled_call_impl = form
        try:
            yield
        finally:
            for adapter, _ in self.forms:
                adapter._compiled_call_impl = None


def pays(setting: str, device: torch.device, steps: int | None) -> bool:
    """Whether adapters are to be compiled.

    Args:
        setting: `training.compile`.
        device: that trains.
        steps: how many are expected, None if nobody knows.
    """
    if setting != "auto":
        return setting == "on"
    return device.type == "cuda" and steps is not None and steps >= AUTO_STEPS
