"""The numbers of a step, which stay on its device until somebody reads them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

READ_STEPS = 20
"""Steps after which their numbers are read from a GPU: as late as that a loss that is not finite
is noticed."""

READ_SECONDS = 1.0
"""They are read after so long in any case."""


class StepMetrics(Mapping[str, float]):
    """The reports of a step, by name: floats to the reader.

    On the CPU they are floats at once. On another device they stay there until one is asked for,
    which waits for the step; `read` fetches those of many steps together.

    Args:
        numbers: floats, and tensors of one number, which may change afterwards.
    """

    def __init__(self, numbers: Mapping[str, float | Tensor]) -> None:
        self._numbers: dict[str, float | None] = {}
        self._names: list[str] = []
        self._there: Tensor | None = None
        self.add(numbers)

    def add(self, numbers: Mapping[str, float | Tensor]) -> None:
        """Further numbers of the same step."""
        there = {}
        for name, value in numbers.items():
            if isinstance(value, Tensor):
                there[name] = value.detach()
                value = value.item() if value.device.type == "cpu" else None
            self._numbers[name] = value
        there = {name: x for name, x in there.items() if self._numbers[name] is None}
        if there:
            self._names += there
            found = [*self._unread, *(x.reshape(()) for x in there.values())]
            self._there = torch.stack([x.to(_widest(found)) for x in found])

    @property
    def known(self) -> bool:
        """Whether all have been read."""
        return self._there is None

    @property
    def _unread(self) -> Sequence[Tensor]:
        return () if self._there is None else self._there.unbind()

    def __getitem__(self, name: str) -> float:
        if self._numbers[name] is None:
            read([self])
        number = self._numbers[name]
        assert number is not None  # `read` has set it
        return number

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __repr__(self) -> str:
        return repr(self._numbers)

    def _take(self, values: Sequence[float]) -> None:
        self._numbers |= zip(self._names, values, strict=True)
        self._names, self._there = [], None


def read(steps: Sequence[StepMetrics]) -> None:
    """Fetch what these steps report, all with one copy from their device."""
    unread = [(step, step._there) for step in steps if step._there is not None]
    if not unread:
        return
    values = torch.cat([there for _, there in unread]).cpu().tolist()
    for step, _ in unread:
        count = len(step._names)
        step._take(values[:count])
        values = values[count:]


class Reading:
    """Tells when it is time to read again: after `READ_STEPS` steps or `READ_SECONDS`."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def due(self, steps: int) -> bool:
        """Whether the numbers of so many steps that are unread should be read now."""
        return steps >= READ_STEPS or time.monotonic() - self.last >= READ_SECONDS

    def done(self) -> None:
        self.last = time.monotonic()


def _widest(values: Sequence[Tensor]) -> torch.dtype:
    dtype = torch.float32
    for value in values:
        dtype = torch.promote_types(dtype, value.dtype)
    return dtype
