"""`Modules`: a list of modules of one class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, Self, TypeVar, overload

from torch import nn

M = TypeVar("M", bound=nn.Module)


class Modules(nn.ModuleList, Generic[M]):
    """An `nn.ModuleList` whose modules are of one class, which type checkers know.

    Example:
        self.heads = Modules(Head(width) for width in widths)
    """

    def __init__(self, modules: Iterable[M] = ()) -> None:
        super().__init__(modules)

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, idx: int) -> M: ...
        @overload
        def __getitem__(self, idx: slice) -> Self: ...
        def __getitem__(self, idx: int | slice) -> M | Self: ...

        def __iter__(self) -> Iterator[M]: ...
