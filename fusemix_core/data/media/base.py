"""`Medium`: how items arrive, from a cell of the data to what `Encoder.collate` gets."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fusemix_core.data.media.in_python import check_no_address, unwrapped
from fusemix_core.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL.Image import Image

    from fusemix_core.specs import EncoderSpec


@dataclass(frozen=True)
class Shown:
    """An item as a reader sees it: text, an image, or a note such as an audio file's name."""

    text: str = ""
    image: Image | None = None
    note: str = ""


class Medium(ABC):
    """How items of one kind arrive: `text`, `image`, `audio`, `file`, or one that a plugin brings.

    Constructed without arguments and registered as kind `medium` under its `name`. An encoder names
    it in `EncoderSpec.takes`. Everything but `decode` has a default, which suits a medium whose
    items are files: cells contain paths, bytes or references, and files are known by their bytes.

    Attributes:
        name: The registered name.
        inline: A cell contains the item itself, as text. Then `cell` brings it to the form by which
            it is known, and `decode` gets that text.
        language: Items are written language: classes can be named in it, and things asked for.
        joined: An inline item takes all columns of its modality in a row, and `cell` gets a dict,
            column → value. Otherwise each column contains an item of its own.
        leftover: Without named columns, a joined medium takes every column that nothing else uses.
        opened: The encoder opens the file itself: `decode` gives its path, and items can't lie in
            archives or table cells.
        costly: Decoding is worth a thread.
        sampled: Items are signals in time: an encoder declares its `sample_rate`.
        decoding: Raised when `decode` gives other values for a file than before, so that latents of
            then are not used again.
        batch: Items that are encoded at once by default, on the CPU and on an accelerator.

    Example:
        class Signal(Medium):
            name = "signal"

            def decode(self, value, sample_rate=None):
                return np.load(io.BytesIO(self.read(value)), allow_pickle=False)
    """

    name: ClassVar[str] = ""
    inline: ClassVar[bool] = False
    language: ClassVar[bool] = False
    joined: ClassVar[bool] = False
    leftover: ClassVar[bool] = False
    opened: ClassVar[bool] = False
    costly: ClassVar[bool] = True
    sampled: ClassVar[bool] = False
    decoding: ClassVar[int] = 1
    batch: ClassVar[tuple[int, int]] = (16, 64)

    @abstractmethod
    def decode(self, value: Any, sample_rate: int | None = None) -> Any:
        """An item as `Encoder.collate` gets it. Runs in threads and worker processes.

        Args:
            value: The text of an inline item; otherwise a `Path`, a path as str, bytes, or whatever
                a user of `FusedModel.encode` may give, such as a decoded item.
            sample_rate: The encoder's `sample_rate`, in hertz.

        Raises:
            DataError: The value can't be read so.
        """

    def cell(self, value: Any) -> str:
        """An inline item as the text by which it is known; "" for an empty cell.

        Args:
            value: A str, number, bytes or `Path`; column → value if `joined`.

        Raises:
            DataError: The cell contains no such item.
        """
        raise NotImplementedError(f"{type(self).__name__} is inline, and has no `cell`")

    def join(self, columns: Mapping[str, pa.Array]) -> pa.Array | None:
        """`cell` of many rows at once, for a joined medium: a faster way to the same texts.

        Args:
            columns: column → Arrow array of strings, numbers or booleans, null if a cell is empty.

        Returns:
            Strings, null for a row without an item; None if these columns need `cell`, row by row.
        """
        return None

    def pack(self, value: Any) -> bytes:
        """An item in Python's memory, not as a path or bytes, as bytes that `decode` reads.

        Raises:
            DataError: It can't be kept so.
        """
        raise DataError(f"a {type(value).__name__} can't be taken as a {self.name}")

    def show(self, described: str, load: Callable[[], Any]) -> Shown:
        """An item for a report.

        Args:
            described: The text of an inline item, else the path.
            load: Gives the decoded item.
        """
        return Shown(text=described) if self.inline else Shown(note=described)

    def note(self, item: Any) -> str:
        """What a user should know of how an item was decoded, "" if nothing; it is told once, after
        the number of items with the same note: "12 of 60 image items …"."""
        return ""

    def blank(self, item: Any) -> str:
        """Why a decoded item shows nothing, such as "black" or "silent"; "" if it does."""
        return ""

    def usual_length(self, spec: EncoderSpec) -> int | None:
        """The length (of `length`) by which `batch` is meant; None if all items count alike.

        Items of like length are batched together, and longer ones come fewer at once.
        """
        return None

    def length(self, item: Any, spec: EncoderSpec) -> int:
        """How long a decoded item is."""
        return 0

    def example(self, count: int = 1) -> list[str]:
        """Items as a person would write them in Python, for model cards; [] if there are none."""
        return []

    # -- for the conformance kit -----------------------------------------------------------------

    def samples(self, spec: EncoderSpec) -> list[Any]:
        """Eight different decoded items, of mixed lengths; [] if encoders bring their own."""
        return []

    def cells(self) -> list[Any]:
        """Different values of cells, if the medium is inline: dicts if it is joined."""
        return []

    def edges(self, spec: EncoderSpec) -> dict[str, Any]:
        """What people's data hold at the edges of this medium, each by what it is."""
        return {}

    def wrong(self) -> list[Any]:
        """Things that are near to an item and none."""
        return []

    # -- for subclasses --------------------------------------------------------------------------

    def existing(self, value: Any) -> Any:
        """The value, a path as an existing `Path`; what `datasets` wraps, unwrapped. Raises
        `DataError`."""
        value = unwrapped(value)
        if isinstance(value, str | Path):
            check_no_address(value)
        if isinstance(value, str):
            value = Path(value)
        if isinstance(value, Path) and not os.path.isfile(value):
            there = os.path.lexists(value)
            raise DataError(
                "this is not a file" if there else "the file does not exist", path=value
            )
        return value

    def read(self, value: Any) -> bytes:
        """The bytes of a path or of bytes. Raises `DataError`."""
        value = self.existing(value)
        if isinstance(value, bytes):
            return value
        if not isinstance(value, Path):
            raise DataError(f"a file is wanted, not {kind(value)}")
        try:
            return value.read_bytes()
        except OSError as error:
            raise DataError(f"can't be read: {error.strerror or error}", path=value) from error


def kind(value: Any) -> str:
    """A value's type in words."""
    return "bytes" if isinstance(value, bytes) else f"a {type(value).__name__}"
