"""Runs the sections, each in a process of its own, and keeps every figure at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import BUDGET, LEAST, SECTIONS, Section
from fusemix_core.disk import make_folder, write_atomically

TAIL = 2_000
"""Characters of a section's last words that are kept if it fails."""

Command = Callable[[Section], list[str]]
Tell = Callable[[dict[str, Any]], None]


class Record:
    """The results so far, which are on disk after every change: written, flushed, renamed."""

    def __init__(self, path: Path, quick: bool, budget: float) -> None:
        self.path = path
        self.content: dict[str, Any] = {
            "machine": {},
            "began": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            "quick": quick,
            "budget": budget,
            "sections": {},
            "rows": [],
        }
        make_folder(path.parent)
        self.save()

    def save(self) -> None:
        text = json.dumps(self.content, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.path, [text.encode()])

    def take(self, section: str, line: dict[str, Any]) -> None:
        """Keep what a section has printed: the machine, a row, or the failure of one part."""
        if "machine" in line:
            self.content["machine"] |= line["machine"]
        elif "failed" in line:
            self.content["sections"][section].setdefault("failed", []).append(line)
        else:
            self.content["rows"].append({"section": section, **line})
        self.save()

    def begin(self, section: str) -> None:
        self.content["sections"][section] = {"state": "began"}
        self.save()

    def end(self, section: str, state: str, **more: Any) -> None:
        """Keep how a section ended."""
        self.content["sections"].setdefault(section, {}).update(state=state, **more)
        self.save()


def run(
    out: Path,
    command: Command,
    *,
    sections: Sequence[Section] = SECTIONS,
    budget: float = BUDGET,
    quick: bool = False,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Run the sections in turn; what has been found, as it is in the file.

    Args:
        out: the file.
        command: what starts a section: it prints one JSON object a line.
        sections: in the order they run.
        budget: seconds for all of them.
        quick: whether this is a rehearsal, in which only the budget limits a section: a CPU may be
            busy with other things.
        tell: is called with each line as it comes.
    """
    record, began = Record(out, quick, budget), time.monotonic()
    for section in sections:
        left = budget - (time.monotonic() - began)
        if left < min(section.seconds, LEAST):
            record.end(section.name, "no time left")
            continue
        record.begin(section.name)
        limit = left if quick else min(2 * section.seconds, left)
        _one(record, section, command(section), limit, tell)
    return record.content


def _one(
    record: Record, section: Section, command: list[str], limit: float, tell: Tell | None
) -> None:
    """One section, and all processes that it starts, for `limit` seconds at most."""
    began = time.monotonic()
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    late = threading.Event()

    def stop() -> None:
        late.set()
        _kill(child)

    timer = threading.Timer(limit, stop)
    errors: list[bytes] = []
    reading = threading.Thread(target=_drain, args=(child.stderr, errors), daemon=True)
    timer.start()
    reading.start()
    try:
        for text in child.stdout:
            with contextlib.suppress(ValueError):  # what a library prints on stdout
                line = json.loads(text)
                if isinstance(line, dict):
                    record.take(section.name, line)
                    if tell:
                        tell(line)
        code = child.wait()
    finally:
        timer.cancel()
        _kill(child)
    reading.join(1.0)
    seconds = round(time.monotonic() - began, 1)
    if late.is_set():
        record.end(section.name, "stopped: it took too long", seconds=seconds)
    elif code:
        last = b"".join(errors)[-TAIL:].decode(errors="replace")
        record.end(section.name, f"died (exit code {code})", seconds=seconds, stderr=last)
    else:
        record.end(section.name, "done", seconds=seconds)


def _drain(stream: Any, into: list[bytes]) -> None:
    """Read to the end, so that the child never waits; keep the last of it."""
    for line in stream:
        into.append(line)
        del into[:-200]


def _kill(child: subprocess.Popen) -> None:
    """End a section and what it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def section_command(quick: bool, device: str) -> Command:
    """What starts the sections of this package."""

    def command(section: Section) -> list[str]:
        given = [sys.executable, "-m", "benchmarks.gpu.child", section.name, "--device", device]
        return [*given, "--quick"] if quick else given

    return command
