"""Fracast-0's encoder of time series, from the package `fracast`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from fracast._core.model import build_from_cfg
from safetensors.torch import load_file
from torch import Tensor, nn

from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.interfaces import Encoder, Padded
from fusemix_core.packaged import packaged_weights
from fusemix_core.specs import EncoderSpec

FEWEST = 8
_GAP = re.compile(r"[\s,;\[\]]+")


class Fracast(Encoder):
    """Time series as numbers in order of time, such as `12.1 12.9 nan 14.0 …`; `nan` is a gap.

    Each series is brought to [0, 1] by its own smallest and largest value. Only the newest values
    are seen, as many as the network's context has (2,048 in the package). The latent is its state
    after the last value; view `time` has the state after each.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        network: nn.Module,
        context: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.spec = spec
        self.device, self.dtype = device, dtype
        self.context = context
        self.model = network.requires_grad_(False).eval().to(device, dtype)

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The packaged weights, or with `fracast@PATH` the user's, beside their config.json.

        Raises:
            ArtefactError: weights that are missing, changed or do not fit.
        """
        path = Path(spec.weights) if spec.local else packaged_weights(spec)
        try:
            settings = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
            with torch.random.fork_rng(devices=[]):
                network, _ = build_from_cfg({key: settings[key] for key in ("model", "pyramid")})
            state = load_file(path)
            core = {k.removeprefix("core."): v for k, v in state.items() if k.startswith("core.")}
            network.load_state_dict(core)
        except Exception as error:  # unreadable, or of another network
            raise ArtefactError(f"{path} does not contain Fracast's weights: {error}") from error
        return cls(spec, network, int(settings["model"]["W"]), device, dtype)

    def collate(self, items: Sequence[str]) -> tuple[Tensor, Tensor]:
        """float32 values in [0, 1] and bool, whether there is one: `[n, context]` each, the newest
        value last.

        Raises ValueError if one is not a series of 8 numbers or more.
        """
        values = torch.zeros(len(items), self.context)
        there = torch.zeros(len(items), self.context, dtype=torch.bool)
        for row, (item, rows, mask) in enumerate(zip(items, values, there, strict=True)):
            numbers = self._numbers(item)[-self.context :]
            known = numbers.isfinite()
            if known.sum() < FEWEST:
                raise ValueError(f"item {row} has fewer than {FEWEST} numbers: '{item[:80]}'")
            low, high = numbers[known].min(), numbers[known].max()
            scaled = (numbers - low) / (high - low).clamp(min=1e-5)
            rows[-len(numbers) :] = torch.where(known, scaled, 0.0).float()
            mask[-len(numbers) :] = known
        return values, there

    @torch.inference_mode()
    def encode(self, batch: tuple[Tensor, Tensor], view: str = "pooled") -> Tensor | Padded:
        """float32: `pooled [n, 64]`; `time [n, T, 64]`, `Padded`, from the first value on."""
        if view not in self.spec.views:
            raise ConfigError(
                f"{self.spec.name} has no view '{view}'.", f"It has: {', '.join(self.spec.views)}."
            )
        values, there = (part.to(self.device)[:, None] for part in batch)
        width = self.spec.dim or 64
        if not len(values):
            empty = torch.empty(0, 0, width)
            return Padded(empty, empty.bool().any(2)) if view == "time" else torch.empty(0, width)
        states = self.model(values.to(self.dtype), there, there.to(self.dtype)).float()
        if view == "pooled":
            return states[:, -1]
        first = there[:, 0].int().argmax(dim=1)
        return Padded.of([rows[at:] for rows, at in zip(states, first.tolist(), strict=True)])

    def truncated(self, items: Sequence[str]) -> int:
        """How many of the series are longer than the network's context."""
        return sum(len(self._numbers(item)) > self.context for item in items)

    @classmethod
    def sample_items(cls, spec: EncoderSpec) -> Sequence[str]:
        """Series long and short: seasons, trends, gaps, one that is constant, one that is cut."""
        steps = torch.arange(2200.0)
        season = (steps[:200] * 0.5).sin()
        made = [
            season,
            steps[:40],
            -steps[:300].sqrt(),
            torch.full((20,), 3.0),
            torch.where(steps[:100] % 7 == 0, torch.nan, (steps[:100] / 5).cos()),
            steps % 24,
            1e6 * season + 1e9,
            steps[:9].square(),
        ]
        return [" ".join(f"{value:.6g}" for value in row.tolist()) for row in made]

    def _numbers(self, item: str) -> Tensor:
        """float64 `[T]`, without the gaps at either end."""
        if not isinstance(item, str):
            raise TypeError(f"{self.spec.name} takes str, not {type(item).__name__}")
        try:
            numbers = [float(part) for part in _GAP.split(item) if part]
        except ValueError:
            raise ValueError(f"not a series of numbers: '{item[:80]}'") from None
        row = torch.tensor(numbers, dtype=torch.float64)
        known = row.isfinite().nonzero().flatten()
        return row[known[0] : known[-1] + 1] if len(known) else row[:0]
