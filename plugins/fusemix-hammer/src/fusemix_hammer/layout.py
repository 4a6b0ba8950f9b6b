"""The order of the scores of a row: real and fake, kinds, box, words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Parts(NamedTuple):
    """Scores, or targets, of n rows: `binary [n, 2]` of real and fake, `kinds [n, K]`, `box
    [n, 4]`, `words [n, length, 2]` of true and false words."""

    binary: Tensor
    kinds: Tensor
    box: Tensor
    words: Tensor


@dataclass(frozen=True)
class Layout:
    """Where the parts are in a row of `[n, C]`.

    Args:
        kinds: how many kinds of manipulation there are.
        length: words of a text that are scored.
    """

    kinds: int
    length: int

    @property
    def first(self) -> int:
        """Where words begin."""
        return 2 + self.kinds + 4

    @property
    def count(self) -> int:
        """C."""
        return self.first + 2 * self.length

    def split(self, rows: Tensor) -> Parts:
        """The parts of `[n, C]`."""
        binary, kinds, box, words = rows.split([2, self.kinds, 4, 2 * self.length], dim=1)
        return Parts(binary, kinds, box, words.unflatten(1, (self.length, 2)))

    def joined(self, parts: Parts) -> Tensor:
        """`[n, C]` of the parts. Words beyond those there are, are as likely true as false."""
        words = parts.words[:, : self.length]
        more = words.new_zeros(len(words), self.length - words.shape[1], 2)
        words = torch.cat([words, more], dim=1).flatten(1)
        return torch.cat([parts.binary, parts.kinds, parts.box, words], dim=1)
