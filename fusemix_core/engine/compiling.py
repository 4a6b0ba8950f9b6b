"""Adapters compiled into one graph each for the steps of a fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fusemix_core.engine.plan import Plan
from fusemix_core.gathering import Rows
from fusemix_core.interfaces import takes_tokens
from fusemix_core.numerics import Precision

AUTO_STEPS = 10_000
"""Steps from which adapters are compiled on a GPU: compiling takes time, too."""
GRAPH_ROWS = 4096
"""Rows of a batch up to which the kernels of an adapter are started as one CUDA graph: starting
them one by one takes longer than they do."""


class Compiling:
    """Compiled forms of adapters, which take the place of these inside `steps`. Validation and
    everything else use the adapters as they are.

    Each form is tried on zeros first, forward and backward; an adapter that can't be compiled in
    one graph stays as it is, and so does one that takes tokens. On a GPU a form for small batches
    is a CUDA graph, if that gives what the form gives without one.

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
        self.graphs = False
        own = Rows.split(plan.batch_size).own
        self.rows, self.precision, self.backend = own.stop - own.start, precision, backend
        for modality, adapter in adapters.items():
            if takes_tokens(adapter) or not any(p.requires_grad for p in adapter.parameters()):
                continue
            if graphs_pay(next(adapter.parameters()).device, self.rows):
                try:
                    self.forms.append((adapter, self._graph(adapter, dims[modality])))
                    self.graphs = True
                    continue
                except Exception as error:  # CUDA and a compiler raise anything
                    tell(f"The {modality} adapter isn't a CUDA graph: {_first_line(error)}")
            try:
                self.forms.append((adapter, self._compiled(adapter, dims[modality])))
            except Exception as error:
                tell(f"The {modality} adapter isn't compiled: {_first_line(error)}")

    def _compiled(self, adapter: nn.Module, dim: int) -> Callable:
        form = torch.compile(adapter._call_impl, fullgraph=True, backend=self.backend)
        self._tried(adapter, form, dim)
        return form

    def _graph(self, adapter: nn.Module, dim: int) -> Callable:
        """The form as a CUDA graph. Calls of one form warm up, record and replay it, in turn."""
        compiled = torch.compile(
            adapter._call_impl, fullgraph=True, backend=self.backend, mode="reduce-overhead"
        )

        def form(latents: Tensor) -> Tensor:
            return compiled(latents).clone()  # the next replay writes over its output

        outputs = []
        for _ in range(3):
            torch.compiler.cudagraph_mark_step_begin()
            outputs.append(self._tried(adapter, form, dim))
        if not torch.allclose(outputs[0], outputs[2], rtol=1e-2, atol=1e-3):
            raise RuntimeError("its replay gives other numbers")
        return form

    def _tried(self, adapter: nn.Module, form: Callable, dim: int) -> Tensor:
        """The output of the form for zeros, float32 `[rows, d]`; the same draws at each call."""
        like = next(adapter.parameters())
        zeros = torch.zeros(self.rows, dim, dtype=like.dtype, device=like.device)
        devices = [like.device] if like.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), self.precision.step():
            torch.default_generator.manual_seed(0)  # `torch.manual_seed` seeds every GPU's
            for device in devices:
                torch.cuda.default_generators[device.index or 0].manual_seed(0)
            with self.precision.adapters():
                found = form(zeros)
            found.float().sum().backward()
        for parameter in adapter.parameters():
            parameter.grad = None
        return found.detach().float()

    @contextmanager
    def steps(self) -> Iterator[None]:
        """The scope of a training step."""
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()
        for adapter, form in self.forms:
            adapter._compiled_call_impl = form
        try:
            yield
        finally:
            for adapter, _ in self.forms:
                adapter._compiled_call_impl = None


def graphs_pay(device: torch.device, rows: int) -> bool:
    """Whether the kernels of an adapter are to be started as one CUDA graph for so many rows."""
    return device.type == "cuda" and rows <= GRAPH_ROWS


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


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
