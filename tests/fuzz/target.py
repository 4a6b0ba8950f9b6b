"""What is fuzzed: good inputs, and how fusemix reads one. What may come out is a `FusemixError`."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fusemix_core.errors import FusemixError

SECONDS = 20
"""A case may take so long, on a machine that is busy with others."""
NUMBERS = (b"0", b"-1", b"1e999", b"nan", b"2147483648", b"-9223372036854775809", b"9" * 5000)
TOKENS = (b"\0", b"\n", b"\r\n", b'"', b"'", b",", b"\t", b";", b"{", b"}", b"[", b"]",
          b"[" * 3000, b"../", b"/etc/passwd", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80",
          b"\\ud800", b"null", b"true", "é\u202e".encode(), b"\x1b[2J", b"A" * 5000, b"http://a/b",
          b"://", b"~/")  # fmt: skip


@dataclass(frozen=True)
class Target:
    """One reader. seeds: good inputs, made once. read: reads an input in a folder of its own.
    tokens: what its format is made of."""

    name: str
    seeds: Callable[[], Sequence[bytes]]
    read: Callable[[bytes, Path], object]
    tokens: tuple[bytes, ...] = ()


class TooSlow(BaseException):
    """A case took more than `SECONDS`."""


def check(target: Target, data: bytes, folder: Path) -> bool:
    """Whether an input could be read. Raises whatever a user must not see."""
    with at_most(SECONDS):
        try:
            target.read(data, folder)
        except FusemixError as error:
            assert error.exit_code == 2, f"not the user's to mend: {error}"
            assert error.message.strip()
            return False
    return True


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TooSlow(f"more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def mutated(seeds: Sequence[bytes], tokens: Sequence[bytes], number: int) -> bytes:
    """The input of this number: always the same, and another than that of any other number."""
    draw = random.Random(number)
    data = bytearray(draw.choice(seeds))
    words = (*tokens, *tokens, *TOKENS, *NUMBERS)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8, 30))):
        start = draw.randrange(len(data) + 1)
        length = min(draw.choice((1, 1, 2, 4, 8, 16, 64, 512)), len(data) - start)
        end = start + length
        match draw.randrange(10):
            case 0 | 1:
                data[start:end] = draw.randbytes(length)
            case 2 if length:
                data[start] ^= 1 << draw.randrange(8)
            case 3:
                data[start:end] = b""
            case 4:
                data[start:start] = data[start:end] * draw.choice((1, 2, 50))
            case 5 | 6:
                data[start:start] = draw.choice(words)
            case 7:
                data[start:end] = draw.choice(words)
            case 8:
                data[start:end] = draw.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
            case 9:
                other = draw.choice(seeds)
                at = draw.randrange(len(other) + 1)
                data[start:end] = other[at : at + length]
    if draw.random() < 0.08:
        del data[draw.randrange(len(data) + 1) :]
    return bytes(data)
