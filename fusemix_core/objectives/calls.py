"""Objectives that change with the number of their calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fusemix_core.interfaces import Objective


class CountsCalls(Objective):
    """An objective that counts its calls in the buffer `calls`, so that a resumed fit goes on.

    The buffer is read once, before the first call: after that the number is known on the CPU.

    Example:
        def forward(self, step):
            share = min(1.0, self.called() / self.warmup)
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self._known: int | None = None

    def called(self) -> int:
        """How many calls there were before this one, which is counted now."""
        before = int(self.calls) if self._known is None else self._known
        self._known = before + 1
        self.calls += 1
        return before

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *rest: Any, **named: Any
    ) -> None:
        self._known = None
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)
