"""Ctrl-C between steps, not in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], None]]:
    """Ctrl-C inside raises `KeyboardInterrupt` only where the yielded function is called.

    A second Ctrl-C acts at once. Outside the main thread, where signals don't arrive, and where
    the program handles SIGINT in its own way, nothing is changed.
    """
    previous = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or previous is not signal.default_int_handler:
        yield lambda: None
        return
    pending = False

    def note(signum: int, frame: object) -> None:
        nonlocal pending
        if pending:
            raise KeyboardInterrupt
        pending = True

    def check() -> None:
        nonlocal pending
        if pending:
            pending = False
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield check
        check()
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def no_interrupt() -> Iterator[Callable[[], None]]:
    """Ctrl-C and SIGTERM do nothing inside: for a process that ends when the first one does.

    Yields what `deferred_interrupt` would. Outside the main thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(s, signal.SIG_IGN) for s in signals]
    try:
        yield lambda: None
    finally:
        for s, handler in zip(signals, previous, strict=True):
            signal.signal(s, handler)
