"""Decoded items cut into groups and batches, whoever decodes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fusemix_core.latents.preparing import Decoded

SORT_BATCHES = 8
BATCH_BYTES = 256 << 20
"""Decoded bytes at which a batch is complete, however few its items."""


@dataclass(frozen=True)
class BatchSize:
    """How many items make a batch: at most `items`, and only so many that padded to the longest
    they are not longer than `length` (characters, samples). With `stretch`, more than `items` where
    they are short."""

    items: int
    length: int | None = None
    stretch: bool = False

    def cut(self, lengths: Sequence[int]) -> Iterator[slice]:
        """Slices of items of these lengths, longest first where `length` counts."""
        at = 0
        while at < len(lengths):
            count = self.items
            if self.length:
                fitting = max(1, self.length // max(1, lengths[at]))
                count = fitting if self.stretch else min(fitting, count)
            yield slice(at, at + count)
            at += count


class Cutter:
    """Cuts the items that can be decoded into batches.

    A group is the next `group_size` of them, so that what comes after a bad item is cut the same
    whether or not the run was stopped in between. Batches never cross a group; within one, texts
    and clips of like length go together.

    Args:
        size: of batches.
        window: items among which those of like length are sought.
        group_size: items of a group.
    """

    def __init__(self, size: BatchSize, window: int, group_size: int) -> None:
        self.size, self.window, self.group_size = size, window, group_size
        self._waiting: list[Decoded] = []
        self._seen = self._held = 0

    def batches(self, items: Iterable[Decoded]) -> Iterator[tuple[int, list[Decoded]]]:
        """(group number, items of a batch), as many as `size` says, fewer if they are huge."""
        group = 0
        for item in items:
            self._waiting.append(item)
            self._held += item.bytes
            group, self._seen = self._seen // self.group_size, self._seen + 1
            full = len(self._waiting) == self.window or self._held >= BATCH_BYTES
            if full or self._seen % self.group_size == 0:
                waiting, self._waiting, self._held = self._waiting, [], 0
                yield from ((group, batch) for batch in self._like_lengths(waiting))
        yield from ((group, batch) for batch in self._like_lengths(self._waiting))

    def to_boundary(self, ahead: int) -> int:
        """How many items after the next `ahead` complete a window or a group, if none is bad."""
        left = self.group_size - self._seen % self.group_size
        if ahead < left:
            begun = (len(self._waiting) + ahead) % self.window
            return min(self.window - begun, left - ahead)
        begun = (ahead - left) % self.group_size
        return min(self.window - begun % self.window, self.group_size - begun)

    def _like_lengths(self, waiting: list[Decoded]) -> Iterator[list[Decoded]]:
        """Batches of the waiting items; where several fill the window, longest first, so that
        little is padding and want of memory shows at once."""
        if self.window > self.size.items:
            waiting = sorted(waiting, key=lambda item: -item.length)
        yield from (waiting[part] for part in self.size.cut([item.length for item in waiting]))
