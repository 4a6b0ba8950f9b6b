"""Opens text files whatever their encoding, line ends and gzip, as UTF-8 with line feeds."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from fusemix_core.data.foreign import HEAD, what_is
from fusemix_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PIECE = 1 << 18


def open_text(path: Path, encoding: str | None = None) -> io.BufferedIOBase:
    """The bytes of a text file in UTF-8.

    A byte order mark is left out. If the first lines end in carriage returns only, these become
    line feeds. Bytes that are not of the encoding come as bytes that are not UTF-8, so that the
    line they stand in can be refused.

    Args:
        encoding: the file's, such as `cp1252` or `utf-16`; None is UTF-8.

    Raises:
        DataError: the file is something else, such as an HTML page or a Git LFS pointer.
        ConfigError: there is no such encoding.
    """
    decode = _decoder(encoding)
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    file: io.BufferedIOBase = opened(path, "rb")
    try:
        head = _piece(file)
        if (found := what_is(head[:HEAD])) is not None:
            raise DataError(f"this is {found[0]}", found[1], path=path)
        first = head if decode is None else _recoded(decode, head, not head)
        first = first.removeprefix(codecs.BOM_UTF8)
        only_returns = b"\r" in first and b"\n" not in first
        return io.BufferedReader(_Piped(file, first, decode, only_returns), _PIECE)
    except BaseException:
        file.close()
        raise


def _decoder(encoding: str | None) -> codecs.IncrementalDecoder | None:
    """How to decode; None if the bytes can stay as they are."""
    if encoding is None:
        return None
    try:
        found = codecs.lookup(encoding)
        if not found._is_text_encoding:
            raise LookupError(encoding)
    except (LookupError, ValueError) as error:
        raise ConfigError(
            f"There is no encoding named '{encoding}'.",
            "Examples: utf-8, utf-16, cp1252, latin-1, shift_jis, gb18030, big5, koi8-r.",
        ) from error
    if found.name == "utf-8":
        return None
    return found.incrementaldecoder(_ESCAPE)


def _piece(file: io.BufferedIOBase) -> bytes:
    try:
        return file.read(_PIECE)
    except (EOFError, zlib.error) as error:
        raise OSError(f"it is not whole: {error}") from error


def _recoded(decode: codecs.IncrementalDecoder, piece: bytes, final: bool) -> bytes:
    return decode.decode(piece, final).encode("utf-8", "surrogateescape")


_ESCAPE = "fusemix-escape"


def _escape(error: UnicodeError) -> tuple[str, int]:
    """A byte that is not of the encoding as one that is not of UTF-8 either."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff" * max(error.end - error.start, 1), max(error.end, error.start + 1)


codecs.register_error(_ESCAPE, _escape)


class _Piped(io.RawIOBase):
    """A file behind what was read of it already, decoded if asked for."""

    def __init__(
        self,
        file: io.BufferedIOBase,
        first: bytes,
        decode: codecs.IncrementalDecoder | None = None,
        only_returns: bool = False,
    ) -> None:
        self._file, self._ready, self._decode = file, first, decode
        self._only_returns, self._at, self._ended = only_returns, 0, False
        if only_returns:
            self._ready = first.replace(b"\r", b"\n")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        while self._at >= len(self._ready):
            if self._ended:
                return 0
            self._ready, self._at = self._next(), 0
        count = min(len(view), len(self._ready) - self._at)
        view[:count] = self._ready[self._at : self._at + count]
        self._at += count
        return count

    def _next(self) -> bytes:
        piece = _piece(self._file)
        self._ended = not piece
        if self._decode is not None:
            piece = _recoded(self._decode, piece, self._ended)
        return piece.replace(b"\r", b"\n") if self._only_returns else piece

    def close(self) -> None:
        self._file.close()
        super().close()
