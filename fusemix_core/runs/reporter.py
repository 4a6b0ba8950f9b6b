"""Who is told how a run goes on."""

from __future__ import annotations

from fusemix_core.interfaces import Callback


class Reporter(Callback):
    """Silent; the command line shows bars. A fit reports through the `Callback` methods."""

    def stage(self, text: str) -> None:
        """A part of the run begins."""

    def encoding(self, name: str, done: int, total: int) -> None:
        """`done` of `total` items of the encoder `name` are in the store."""

    def note(self, text: str) -> None:
        """Something the user should know, such as texts that were cut."""
