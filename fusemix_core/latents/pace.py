"""Whether an encoder waits for its items while cores are free."""

from __future__ import annotations

import time
from collections.abc import Callable

BATCHES = 8
SECONDS = 5.0
"""The least that is measured before anything is decided."""
IDLE = 0.25
"""The share of the time that an encoder waits, from which decoding is too slow for it."""
BUSY = 0.8
"""Cores that threads keep busy where they contain each other up. Below that they wait for a
disk."""
FREE = 1.5
"""Cores that must be free."""
WORTH = 60.0
"""Seconds that are left, from which starting processes pays: each imports torch and the encoder's
libraries."""


class Pace:
    """How fast an extraction goes, and what holds it up.

    Args:
        items: how many there are to encode.
        cores: that this process may use.
        clock, cpu: seconds that have passed, and that this process has computed.
    """

    def __init__(
        self,
        items: int,
        cores: int,
        clock: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self.items, self.cores = items, cores
        self._clock, self._cpu = clock, cpu
        self._began = self._cpu_before = 0.0
        self._batches = self._done = 0
        self._idle = 0.0

    def came(self, items: int, idle: float) -> None:
        """A batch of so many items is there; the encoder had waited for it for so long. Before the
        first one there is nothing to measure."""
        if not self._batches:
            self._began, self._cpu_before, idle, items = self._clock(), self._cpu(), 0.0, 0
        self._batches += 1
        self._done += items
        self._idle += idle

    def processes(self) -> int:
        """How many processes should decode; 0 if threads do."""
        elapsed = self._clock() - self._began
        if self._batches <= BATCHES or elapsed < SECONDS or not self._done:
            return 0
        busy = (self._cpu() - self._cpu_before) / elapsed
        left = (self.items - self._done) * elapsed / self._done
        slow = self._idle / elapsed >= IDLE and busy >= BUSY
        pays = self.cores - busy >= FREE and left >= WORTH
        return self.cores - 1 if slow and pays else 0
