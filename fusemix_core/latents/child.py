"""Processes that this one starts for a part of its work, and the messages between them.

They are started afresh, never forked, and run a module of this package: a script of the user's is
not imported again. Each ends when its pipe does, however its parent ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from fusemix_core.errors import FusemixError
from fusemix_core.registry import registry
from fusemix_core.userfile import import_file, imported_files

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from importlib import import_module; import_module(sys.argv[2]).main(sys.argv[3:])"
)
_HELPER = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}

_LEAVES_SECONDS = 10.0
"""How long a process that says nothing more may take to end."""


def can_start() -> bool:
    """Whether this system can start such processes."""
    return os.name == "posix" and bool(sys.executable)


class Line:
    """Messages over a pair of pipes; several threads may send."""

    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self._source, self._sink = source, sink
        self._lock = threading.Lock()

    def send(self, *message: Any) -> None:
        """Raises OSError or ValueError if the other side is gone."""
        content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with self._lock:
            self._sink.write(len(content).to_bytes(8, "little"))
            self._sink.write(content)
            self._sink.flush()

    def messages(self) -> Iterator[tuple]:
        """All that the other side sends."""
        while len(head := self._source.read(8)) == 8:
            content = self._source.read(size := int.from_bytes(head, "little"))
            if len(content) < size:
                return
            yield pickle.loads(content)  # noqa: S301  from a process of ours


class Child:
    """A process of this one.

    Args:
        module: whose `main(arguments)` it runs.
        heard: called with each message, in a thread of the child's.
        ended: called in that thread after the last message, unless the child is closed.
        helper: it computes in one thread and sees no GPU.
        descriptors: files that it has open, too. Its arguments are the number of the pipe to this
            process, and theirs.
    """

    def __init__(
        self,
        module: str,
        heard: Callable[[tuple], None],
        ended: Callable[[], None],
        *,
        helper: bool = True,
        descriptors: Sequence[int] = (),
    ) -> None:
        self._heard, self._ended, self._closed = heard, ended, False
        source, sink = os.pipe()
        files = (sink, *descriptors)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), module, *map(str, files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # what its libraries print
            pass_fds=files,
            env={**os.environ, **(_HELPER if helper else {})},
            process_group=0,  # Ctrl-C is for the parent, which ends it
        )
        os.close(sink)
        self._source = os.fdopen(source, "rb")
        assert self.process.stdin is not None  # it is a pipe
        self._sink = self.process.stdin
        self._line = Line(self._source, self._sink)
        self._thread = threading.Thread(target=self._listen, name="fusemix-child", daemon=True)

    def start(self) -> None:
        """Begin to listen, and have the child import the files that the user named."""
        self._thread.start()
        self.send(registry.files, imported_files())

    def send(self, *message: Any) -> None:
        """A child that is gone hears nothing: `ended` is called for it."""
        try:
            self._line.send(*message)
        except (OSError, ValueError):
            if self.process.poll() is None and not self._closed:
                self.process.kill()

    def close(self) -> None:
        """End the process now. `ended` is not called any more."""
        self._closed = True
        self.process.kill()
        self.process.wait()
        if threading.current_thread() is not self._thread and self._thread.ident:
            self._thread.join()
        for pipe in (self._sink, self._source):
            with contextlib.suppress(OSError):  # of what was not written
                pipe.close()

    def how_it_ended(self) -> str:
        """`signal SIGSEGV` or `exit status 1`."""
        status = self.process.wait()
        if status >= 0:
            return f"exit status {status}"
        try:
            return f"signal {signal.Signals(-status).name}"
        except ValueError:
            return f"signal {-status}"

    def _listen(self) -> None:
        try:
            for message in self._line.messages():
                if not self._closed:
                    self._heard(message)
            if not self._closed:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(_LEAVES_SECONDS)  # it ends by itself, and says how
        finally:
            if not self._closed:
                self.process.kill()  # it does not end, or was not understood
                self._ended()


def joined(pipe: str) -> tuple[Line, Iterator[tuple]]:
    """In a child: the line to its parent, by the first of its arguments, and what that sends.

    Takes in the files that the user named.
    """
    line = Line(sys.stdin.buffer, os.fdopen(int(pipe), "wb"))
    messages = line.messages()
    plugins, others = next(messages, ((), ()))
    for file in plugins:
        registry.load_file(file)
    for file in others:
        import_file(file)
    return line, messages


def heeded(messages: Iterator[tuple]) -> Iterator[tuple]:
    """In a child: the messages, heard in a thread, so that it ends with its parent at once."""
    heard: queue.SimpleQueue[tuple] = queue.SimpleQueue()

    def listen() -> None:
        for message in messages:
            heard.put(message)
        os._exit(0)

    threading.Thread(target=listen, name="fusemix-parent", daemon=True).start()
    while True:
        yield heard.get()


# -- errors --------------------------------------------------------------------------------------


def packed_error(error: BaseException) -> bytes:
    """An error to raise on the other side."""
    if isinstance(error, FusemixError):  # constructors differ
        return pickle.dumps((type(error), error.message, error.hint))
    try:
        content = pickle.dumps(error)
        pickle.loads(content)  # noqa: S301
        return content
    except Exception:  # pickling raises anything
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def unpacked_error(content: bytes) -> BaseException:
    """What `packed_error` packed."""
    found = pickle.loads(content)  # noqa: S301  from a process of ours
    if isinstance(found, tuple):
        kind, message, hint = found
        found = kind.__new__(kind)
        FusemixError.__init__(found, message, hint)
    return found
