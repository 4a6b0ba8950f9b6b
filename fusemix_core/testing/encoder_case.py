"""The suite of checks of encoders, and what they look at: an encoder with its items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fusemix_core.interfaces import Encoder, Padded
from fusemix_core.specs import EncoderSpec
from fusemix_core.testing.suite import CheckFailed, Suite, expect
from fusemix_core.testing.watch import Watch

ENCODER = Suite("encoder", least=26)


@dataclass
class EncoderCase:
    """An encoder and what it is checked with.

    edges: edge inputs by what they are. make: gives the encoder again; load: the same in another
    dtype; None if it can't be had again. device: the one asked for, if any. plugin: the module
    that lists it, or "". declared: the spec before it was fitted, or what is checked has no such.
    """

    spec: EncoderSpec
    encoder: Encoder
    items: list[Any]
    edges: dict[str, Any]
    tolerance: float = 1e-3
    make: Callable[[], Encoder] | None = None
    load: Callable[[torch.dtype], Encoder] | None = None
    device: torch.device | None = None
    plugin: str = ""
    declared: EncoderSpec | None = None

    def raw(self, items: Sequence[Any], view: str | None = None) -> Tensor | Padded:
        """What `encode` returns for `items`."""
        batch = self.encoder.collate(list(items))
        return self.encoder.encode(batch, view or self.spec.views[0])

    def rows(self, items: Sequence[Any], view: str | None = None) -> list[Tensor]:
        """The latents of each item, float32 on the CPU, padding taken off."""
        latents = rows_of(self.raw(items, view))
        expect(len(latents) == len(items), f"{len(latents)} rows for {len(items)} items")
        return latents

    @cached_property
    def latents(self) -> dict[str, list[Tensor]]:
        """view → the latents of each item, encoded in one batch."""
        return {view: self.rows(self.items, view) for view in self.spec.views}

    def expect_near(self, got: Sequence[Tensor], wanted: Sequence[Tensor], what: str) -> None:
        """Fail unless the latents are the same within the tolerance; `what` names the items."""
        largest = max((w.abs().max().item() for w in wanted if w.numel()), default=0.0)
        for i, (g, w) in enumerate(zip(got, wanted, strict=True)):
            expect(g.shape == w.shape, f"{what}: item {i} is {list(g.shape)}, not {list(w.shape)}")
            apart = (g - w).abs().max().item() / max(largest, 1e-12) if w.numel() else 0.0
            expect(
                apart <= self.tolerance,
                f"{what}: the latents of item {i} differ by {apart:.2g} of the largest",
            )

    def modules(self) -> list[nn.Module]:
        """The modules that the encoder holds."""
        return [v for v in vars(self.encoder).values() if isinstance(v, nn.Module)]

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and saved buffers of these modules, by name."""
        found = {}
        for name, value in vars(self.encoder).items():
            if isinstance(value, nn.Module):
                state = value.state_dict(keep_vars=True)
                found |= {f"{name}.{n}": t for n, t in state.items() if isinstance(t, Tensor)}
        return found

    @cached_property
    def again(self) -> tuple[str, Mapping[str, Sequence[str]]]:
        """Of the encoder made again and used: its `weights_digest`, and what it changed in the
        process, by kind. Of a given encoder the same, without making it."""
        watch, encoder = Watch(), self.encoder
        if self.make is not None:
            with watch("making the encoder"):
                encoder = self.make()
        with watch("collate"):
            batch = encoder.collate(list(self.items))
        for view in self.spec.views:
            with watch(f"encode to {view}"):
                encoder.encode(batch, view)
        return encoder.weights_digest, watch.changes


def rows_of(latents: Any) -> list[Tensor]:
    """The latents `[…, d]` of each item of what `encode` returned, padding taken off."""
    if isinstance(latents, Padded):
        pairs = zip(latents.values, latents.mask, strict=True)
        return [v[m].float().cpu().clone() for v, m in pairs]
    if not isinstance(latents, Tensor):
        raise CheckFailed(f"encode gave a {type(latents).__name__}, not a Tensor or Padded")
    return list(latents.detach().float().cpu().clone())
