"""The medium `text`."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusemix_core.data.foreign import HEAD, described
from fusemix_core.data.media.base import Medium, kind
from fusemix_core.data.media.limits import MAX_TEXT
from fusemix_core.errors import DataError

if TYPE_CHECKING:
    from fusemix_core.specs import EncoderSpec

CHARACTERS_PER_TOKEN = 4
"""As tokenizers of today make of English. Other languages have more tokens, Chinese three times."""
_EMPTY = "empty text"


class TextMedium(Medium):
    """A str (or UTF-8 bytes, or the Path of a text file) → normalised str."""

    name = "text"
    inline = True
    language = True
    costly = False
    batch = (64, 256)

    def decode(self, value: Any, sample_rate: int | None = None) -> str:
        return read_text(value)

    def cell(self, value: Any) -> str:
        if isinstance(value, bytes | Path):
            try:
                return read_text(value)
            except DataError as error:
                if error.message == _EMPTY:
                    return ""
                raise
        if not isinstance(value, str | int | float):
            raise DataError(f"contains {kind(value)}, not a text")
        text = normalise_text(str(value))
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError("the text contains half a surrogate pair") from error
        return text

    def usual_length(self, spec: EncoderSpec) -> int:
        return 256  # 64 tokens

    def length(self, item: str, spec: EncoderSpec) -> int:
        """Characters as far as the encoder reads it, and those that stand for what is put around
        each."""
        most = CHARACTERS_PER_TOKEN * spec.max_tokens if spec.max_tokens else None
        return len(item[:most]) + 2 * CHARACTERS_PER_TOKEN

    def example(self, count: int = 1) -> list[str]:
        return ["a red bicycle", "a map of the harbour"][:count]

    def samples(self, spec: EncoderSpec) -> list[str]:
        return self.cells() if spec.modality == "text" else []

    def cells(self) -> list[str]:
        return [
            "a",
            "A dog runs.",
            "Two cats sleep on a warm red sofa.",
            "日本語の文",
            "3 + 4 = 7",
            "naïve café",
            "word " * 60,
            "🙂",
        ]

    def edges(self, spec: EncoderSpec) -> dict[str, str]:
        if spec.modality != "text":
            return {}
        return {
            "a full stop": ".",
            "a space": " ",
            "nothing": "",
            "a very long text": "A very long text. " * 2_000,
            "a word of 3,000 letters": "x" * 3_000,
            "emoji": "👩‍👩‍👧‍👦🏳️‍🌈" * 5,
            "a NUL": "before\0after",
            "line breaks": "one\n\ntwo\r\n\tthree",
            "right to left": "שלום עולם",
            "a lone surrogate's replacement": "\ufffd",
            "special tokens": "[CLS] [SEP] [PAD] <s> </s> <pad> <|endoftext|>",
        }

    def wrong(self) -> list[Any]:
        return [b"bytes"]


def normalise_text(text: str) -> str:
    """The form by which a text is known and read: Unicode NFC, no white space at either end."""
    return (text if text.isascii() else unicodedata.normalize("NFC", text)).strip()


def read_text(value: Any) -> str:
    if isinstance(value, Path):
        try:
            if os.path.isfile(value) and os.path.getsize(value) > MAX_TEXT:
                raise DataError(f"the text is larger than {MAX_TEXT >> 20} MiB", path=value)
            value = value.read_bytes()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise DataError(f"can't be read: {why}", path=value) from error
    if isinstance(value, bytes):
        if found := described(value[:HEAD]):
            raise DataError(f"the text is {found}")
        try:
            value = value.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"the text is not UTF-8: {error.reason} at byte {error.start}"
            ) from error
    if not isinstance(value, str):
        raise DataError(f"a text is wanted, not {kind(value)}")
    text = normalise_text(value)
    if not text:
        raise DataError("empty text")
    return text
