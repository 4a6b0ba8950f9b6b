"""The medium `file`: items that the encoder opens itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fusemix_core.data.media.base import Medium, kind
from fusemix_core.errors import DataError


class FileMedium(Medium):
    """A path → an existing `Path`."""

    name = "file"
    opened = True
    costly = False

    def decode(self, value: Any, sample_rate: int | None = None) -> Path:
        value = self.existing(value)
        if isinstance(value, Path):
            return value
        raise DataError(
            f"a file is wanted, not {kind(value)}",
            "This encoder opens files itself: extract the archive and give the folder.",
        )

    def pack(self, value: Any) -> bytes:
        self.decode(value)
        return super().pack(value)
