"""Work in a process of its own, which may be killed."""

import os
from collections.abc import Callable


def child(work: Callable[[], object]) -> int:
    """The exit code of a process that does the work; minus a signal that killed it."""
    return code(begin(work))


def begin(work: Callable[[], object]) -> int:
    """The id of a process that does the work."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def code(pid: int) -> int:
    """Its exit code, when it has ended; minus a signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
