"""When checkpoints are written, and who waits for it."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from fusemix_core.engine import checkpoint
from fusemix_core.engine.state import TrainState

SHARE = 0.1
"""The share of the time that writing checkpoints may take; beyond it an evaluation goes unsaved."""


class Saver:
    """Writes the checkpoints of a fit: beside the training on a device, at once on the CPU.

    On the CPU a copy of the weights and moments would cost more memory than it saves time. On a
    device training goes on as soon as the state has been copied, and the next save waits for the
    one before. A write that failed is reported by the next `save` or by `finish`.

    Args:
        checkpoints: The folder.
        digest: Ties checkpoints to the run.
        device: Where training runs.
        beside: Write in a thread; by default if the device isn't the CPU.
    """

    def __init__(
        self, checkpoints: Path, digest: str, device: torch.device, beside: bool | None = None
    ) -> None:
        self.checkpoints, self.digest, self.device = checkpoints, digest, device
        self.thread = ThreadPoolExecutor(1, "fusemix-checkpoint")
        self.beside = device.type != "cpu" if beside is None else beside
        self.writing: Future[None] | None = None
        self.took = self.ended = -1.0

    def due(self) -> bool:
        """Whether the next one may be written: long enough after the last, which has ended."""
        if self.writing is not None and not self.writing.done():
            return False
        return self.took < 0 or (time.monotonic() - self.ended) * SHARE >= self.took

    def save(self, state: TrainState) -> None:
        """Save the state as it is now. Raises `ArtefactError` if a checkpoint can't be written."""
        self.finish()
        taken = checkpoint.snapshot(state, self.device)
        if not self.beside:
            self._write(taken)
            return
        if self.device.type == "cpu":  # the tensors are training's own
            taken = checkpoint.Snapshot(
                taken.values, {name: x.clone() for name, x in taken.tensors.items()}
            )
        self.writing = self.thread.submit(self._write, taken)

    def finish(self) -> None:
        """Wait until all is on disk. Raises `ArtefactError` if it can't be written."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Wait until all is on disk, or can't be written, and end the thread."""
        self.thread.shutdown()

    def _write(self, taken: checkpoint.Snapshot) -> None:
        began = time.monotonic()
        try:
            checkpoint.save(taken, self.checkpoints, self.digest)
        finally:
            self.ended = time.monotonic()
            self.took = self.ended - began
