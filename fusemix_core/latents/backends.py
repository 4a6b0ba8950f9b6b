"""Which runtime encodes: torch, or a faster one where its latents agree."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fusemix_core.config import Backend
from fusemix_core.errors import MissingDependencyError
from fusemix_core.interfaces import Encoder, Network, Padded
from fusemix_core.latents import exported
from fusemix_core.latents.exported import Exports, Session
from fusemix_core.project import how_to_install
from fusemix_core.specs import EncoderSpec

AGREEMENT = 0.9999
"""What `agreement` of the latents must be."""
PROBE_ITEMS = 8
EXPORT_SECONDS = 20.0
"""Items that torch would encode within this are not worth an export, which takes about as long."""
TOLD_ITEMS = 256
"""Of fewer items nobody is told what could be installed."""

Run = Callable[[str, dict[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Work:
    """What is to be encoded: `count` items of a view; the fingerprint and the home say where the
    exported network is kept."""

    view: str
    fingerprint: str
    home: Path
    count: int


def accelerate(
    encoder: Encoder, work: Work, probe: Callable[[], Any | None], backend: Backend = "auto"
) -> str:
    """Put OpenVINO under the encoder, a float32 one on the CPU, if that pays and agrees.

    `probe()` is a collated batch of the first items to be encoded, None if these are bad. Returns a
    sentence for the user where torch stays for a reason to know, else "". `openvino` asks neither
    whether it pays nor whether it is faster; without its packages it is a MissingDependencyError.
    """
    forced, name = backend == "openvino", encoder.spec.name
    if backend == "eager" or (not forced and work.count <= PROBE_ITEMS):
        return ""
    if encoder.network(work.view) is None:
        warning = f"{name} is run by torch: it offers no network for the view '{work.view}'."
        return warning if forced else ""
    if package := exported.missing():
        if forced:
            raise MissingDependencyError.of("--backend openvino", package, exported.EXTRA)
        many = work.count >= TOLD_ITEMS
        hint = f"Encoders may run faster on a CPU with OpenVINO: {how_to_install(exported.EXTRA)}"
        return hint if many else ""
    try:
        if (batch := probe()) is not None:
            _Trial(encoder, work, batch, forced).run()
    except _StaysError as why:
        return f"{name} is run by torch: {why}."
    return ""


class _StaysError(Exception):
    """Why torch stays."""


class _Trial:
    """Torch and OpenVINO on one batch."""

    def __init__(self, encoder: Encoder, work: Work, batch: Any, forced: bool) -> None:
        self.encoder, self.work, self.batch, self.forced = encoder, work, batch, forced
        self.exports = Exports(work.home, work.fingerprint, work.view)
        self.inputs: list[dict[str, Tensor]] = []

    def run(self) -> None:
        """Leaves the better of the two under the encoder; raises `_StaysError` if that is torch
        and the user should know."""
        expected, seconds = self._timed(self._noted)
        if not self.inputs:  # `encode` goes another way
            return
        kept = self.exports.find()
        if not (kept or self.forced or seconds / PROBE_ITEMS * self.work.count > EXPORT_SECONDS):
            return
        try:
            session, taken = self._tried(kept or self._export(), expected)
        except _StaysError:
            if kept is None:
                raise
            session, taken = self._tried(self._export(), expected)  # the file was of older code
        if taken > seconds and not self.forced:
            raise _StaysError("OpenVINO is not faster")
        self.encoder.runtime = Runtime(session, self.encoder, self.work.view)

    def _noted(self, view: str, inputs: dict[str, Tensor]) -> Tensor:
        if view == self.work.view:
            self.inputs.append(inputs)
        return _network(self.encoder, view).module(**inputs)

    def _timed(self, runtime: Run) -> tuple[Tensor, float]:
        """(vectors `[m, d]`, seconds) of the batch; of the second time, for the first warms up."""
        self.encoder.runtime = runtime
        try:
            self.encoder.encode(self.batch, self.work.view)
            start = time.perf_counter()
            returned = self.encoder.encode(self.batch, self.work.view)
            return vectors(returned), time.perf_counter() - start
        finally:
            self.encoder.runtime = None

    def _export(self) -> Path:
        network = _network(self.encoder, self.work.view)
        try:
            return self.exports.make(network, self.inputs[0])
        except Exception as error:  # an exporter raises anything
            raise _StaysError(f"it can't be exported to ONNX ({_first_line(error)})") from error

    def _tried(self, path: Path, expected: Tensor) -> tuple[Session, float]:
        """(the exported network, seconds of the batch), if it gives the latents expected."""
        try:
            session = Session(path)
            found, seconds = self._timed(lambda view, inputs: session(inputs))
        except Exception as error:  # a runtime raises anything
            raise _StaysError(f"OpenVINO can't run it ({_first_line(error)})") from error
        alike = agreement(expected, found)
        if not alike >= AGREEMENT:
            raise _StaysError(f"OpenVINO gives other latents (cosine {alike:.5f})")
        return session, seconds


def _network(encoder: Encoder, view: str) -> Network:
    network = encoder.network(view)
    assert network is not None, f"{encoder.spec.name} calls `compute`, and has no network"
    return network


class Runtime:
    """A session in place of an encoder's network, which has its work again should that fail."""

    def __init__(self, session: Session, encoder: Encoder, view: str) -> None:
        self.session, self.encoder, self.view = session, encoder, view
        self.failure = ""

    def __call__(self, view: str, inputs: dict[str, Tensor]) -> Tensor:
        if view == self.view and not self.failure:
            try:
                return self.session(inputs)
            except Exception as error:  # a runtime raises anything
                self.failure = _first_line(error)
        return _network(self.encoder, view).module(**inputs)


def failure(spec: EncoderSpec, runtime: Any) -> list[str]:
    """The note on a runtime that failed on the way."""
    why = getattr(runtime, "failure", "")
    warning = f"{spec.name} was run by torch after OpenVINO failed ({why})."
    return [warning] if why else []


def vectors(latents: Tensor | Padded) -> Tensor:
    """Latents of any view as float64 `[m, d]`, without padding."""
    if isinstance(latents, Padded):
        latents = latents.values[latents.mask]
    return latents.detach().double().flatten(0, -2)


def agreement(a: Tensor, b: Tensor) -> float:
    """The least cosine of the rows of `a` and `b` `[m, d]`, less what their lengths differ.

    1 - |a - b|² / 2|a||b|, which is the cosine for rows of one length and less for others.
    """
    if a.shape != b.shape:
        return math.nan
    far = (a - b).square().sum(1) / (2 * a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-30)
    return 1 - float(far.max())


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
