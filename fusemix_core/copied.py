"""What is known on the CPU of a tensor that lies on a GPU."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Copied(NamedTuple):
    """A tensor on a device, and the same on the CPU for as long as nobody changes it."""

    there: Tensor
    version: int
    here: Tensor

    @classmethod
    def of(cls, there: Tensor, here: Tensor) -> Copied:
        return cls(there, _version(there), here)

    def is_of(self, x: Tensor) -> bool:
        """Whether x is the tensor, unchanged since it was copied."""
        return x is self.there and _version(x) == self.version


def _version(x: Tensor) -> int:
    """How often it was written to; 0 where torch doesn't count, in inference mode."""
    return 0 if x.is_inference() else x._version
