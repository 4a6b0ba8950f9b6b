"""The medium `id`: items that an encoder knows by name, such as rows of a matrix."""

from __future__ import annotations

from fusemix_core.data.media.text import TextMedium
from fusemix_core.specs import EncoderSpec


class IdMedium(TextMedium):
    """An id in a cell → the same str."""

    name = "id"
    language = False

    def example(self, count: int = 1) -> list[str]:
        return [str(row) for row in range(count)]  # rows without ids have numbers

    def samples(self, spec: EncoderSpec) -> list[str]:
        return []  # only the encoder knows its ids

    def edges(self, spec: EncoderSpec) -> dict[str, str]:
        return {}
