"""Ctrl-C and SIGTERM between steps, not in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def deferred_interrupt(notice: Callable[[], None] | None = None) -> Iterator[Callable[[], None]]:
    """Ctrl-C inside raises `KeyboardInterrupt` only where the yielded function is called; a SIGTERM
    that the program handles is handled there.

    Args:
        notice: Called at once when the first signal arrives, to answer whoever sent it.

    A second signal acts at once. Outside the main thread, where signals don't arrive, and where
    the program handles SIGINT in its own way, nothing is changed.
    """
    handlers = {int(s): signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    main = threading.current_thread() is threading.main_thread()
    if not main or handlers[signal.SIGINT] is not signal.default_int_handler:
        yield lambda: None
        return
    previous = {s: handler for s, handler in handlers.items() if callable(handler)}
    pending: list[int] = []

    def note(signum: int, frame: object) -> None:
        pending.append(signum)
        if len(pending) > 1:
            act()
        elif notice is not None:
            notice()

    def act() -> None:
        signum = pending[-1]
        pending.clear()
        previous[signum](signum, None)

    def check() -> None:
        if pending:
            act()

    for s in previous:
        signal.signal(s, note)
    try:
        yield check
        check()
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)


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
