"""From items to latents: the one way, for extraction and for a model in use."""

from __future__ import annotations

import math
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self, get_args

import torch

from fusemix_core.config import Backend, Dtype, StoreDtype
from fusemix_core.devices import as_current, out_of_memory
from fusemix_core.errors import ConfigError, ContractError, FusemixError
from fusemix_core.interfaces import Encoder
from fusemix_core.latents.backends import PROBE_ITEMS, Work, accelerate, failure
from fusemix_core.latents.cutting import BatchSize
from fusemix_core.latents.pace import Pace
from fusemix_core.latents.pipeline import Pipeline
from fusemix_core.latents.preparing import Collated, Rejects, Source
from fusemix_core.latents.returned import Latents, latents_of
from fusemix_core.latents.sharing import forked, locks_of, settle
from fusemix_core.latents.transfer import Transfer
from fusemix_core.specs import EncoderSpec

_ONE_OF = {
    "dtype": get_args(Dtype),
    "store_dtype": get_args(StoreDtype),
    "backend": get_args(Backend),
}


@dataclass(frozen=True)
class Encoding:
    """How items are encoded; names as in `RunConfig`.

    Args:
        device: where; of several, each has an encoder of its own.
        dtype: what the encoder computes in; `auto` is float32, or on a CUDA device what `half`
            chooses.
        dtypes: modality → what its encoder computes in, in place of `dtype`.
        store_dtype: what latents are stored in.
        batch_size: items at once. None: as many as suit the medium, texts under a budget of tokens
            and sounds of seconds.
        views: modality → view.
        backend: the runtime on the CPU; see `accelerate`.
        workers: threads that decode. None: one for each core.
        processes: that decode in place of the threads. None: as many as there are free cores where
            threads are too slow for the encoder, else none.
        store: the address of the object store that latents are kept in. None: `$FUSEMIX_STORE`,
            else the folder `$FUSEMIX_HOME`.
    """

    device: torch.device | str | Sequence[torch.device | str] = "cpu"
    dtype: Dtype = "auto"
    store_dtype: StoreDtype = "float16"
    batch_size: int | None = None
    views: Mapping[str, str] = field(default_factory=dict)
    backend: Backend = "auto"
    workers: int | None = None
    dtypes: Mapping[str, Dtype] = field(default_factory=dict)
    processes: int | None = None
    store: str | None = None

    def __post_init__(self) -> None:
        for name, known in _ONE_OF.items():
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}.", f"It is one of {', '.join(known)}."
                )
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; it must be 1 or more.")
        if self.processes is not None and not 0 <= self.processes <= 256:
            raise ConfigError(f"processes is {self.processes}; it must be from 0 to 256.")

    @property
    def devices(self) -> list[torch.device]:
        """The devices, one at least."""
        if isinstance(self.device, str | torch.device):
            return [torch.device(self.device)]
        return [torch.device(device) for device in self.device]


_Part = tuple[list[int], Latents]
_Parts = Callable[[], Iterable[_Part]]
_Batch = tuple[int, int, _Parts]


@dataclass(frozen=True)
class EncodedBatch:
    """A batch on its way: the number of its group, how many of its items were cut, and what gives
    its latents. One batch has several parts if the device had not room for it whole."""

    group: int
    cut: int
    parts: _Parts
    """Called once: (items, latents) of each part."""


Runtime = Callable[[str, dict[str, Any]], Any]


def in_flight(device: torch.device) -> int:
    """Batches on their way through one encoder: on a GPU one computes while one is fetched."""
    return 2 if device.type == "cuda" else 1


class ItemEncoder:
    """Items through one encoder, or one for each device; use as a context manager.

    Batches come under a budget, are halved when memory runs out, and are checked against the
    encoder's contract. Several threads may encode by the same encoder: each batch waits for its
    turn.

    Args:
        items: what is encoded.
        view: the view.
        encoders: one for each device.
        devices: where each of the encoders is.
        batch: how many items make a batch.
        workers: threads that decode.
        reject: called with the index of an item that can't be encoded, and why. None: the item is
            left out and noted in `bad`.
        processes: that decode; see `Encoding`.
    """

    def __init__(
        self,
        items: Source,
        view: str,
        encoders: Sequence[Encoder],
        devices: Sequence[torch.device],
        batch: BatchSize,
        *,
        spec: EncoderSpec | None = None,
        workers: int | None = None,
        reject: Rejects | None = None,
        processes: int | None = 0,
    ) -> None:
        settle()
        self.items, self.view, self.encoders = items, view, list(encoders)
        self.spec = spec or encoders[0].spec
        self.device, self.batch = devices[0], batch
        self._places = {
            id(e): (place, Transfer(place)) for e, place in zip(encoders, devices, strict=False)
        }
        self.runtime: Runtime | None = None
        self.cut, self.limit = 0, math.inf
        self._form: tuple[bool, tuple[int, ...]] | None = None
        pin = self.device.type == "cuda" and self.encoders[0].on_device
        behind = self.device.type == "cpu"
        self._pipeline = Pipeline(self.spec, items, encoders[0], workers, reject, pin, behind)
        self._at_once = len(self.encoders) * in_flight(self.device)
        self._devices = ThreadPoolExecutor(self._at_once, "fusemix-device")
        self._free: queue.SimpleQueue[Encoder] = queue.SimpleQueue()
        if not self._pipeline.medium.costly:
            processes = 0
        self._may_start, self._started = processes is None and hasattr(items, "select"), False
        if processes:
            self._pipeline.start_processes(processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._devices.shutdown(wait=True, cancel_futures=True)
        self._pipeline.close()

    @property
    def bad(self) -> dict[int, str]:
        """Index of an item → why it has no latent, in order."""
        return dict(sorted(self._pipeline.bad.items()))

    def accelerate(self, wanted: Sequence[int], work: Work, backend: Backend) -> str:
        """Take a faster runtime if that pays and agrees; what the user should know, or ""."""
        encoder = self.encoders[0]
        if forked():  # OpenVINO's threads did not come along
            warning = f"{self.spec.name} is run by torch: this process was forked."
            return warning if backend == "openvino" else ""
        with locks_of(encoder).encode:
            try:
                first = wanted[:PROBE_ITEMS]
                probe = lambda: self._pipeline.collate(first).batch  # noqa: E731
                return accelerate(encoder, work, probe, backend)
            finally:
                self.runtime, encoder.runtime = encoder.runtime, None

    def encoded(
        self, wanted: Iterable[int], group_size: int, total: int = 0
    ) -> Iterator[EncodedBatch]:
        """The batches of the items `wanted`, in their order; `total` is how many they are, if that
        is known.

        No batch crosses a group of `group_size` items. With one encoder on the CPU a batch is
        encoded when its parts are asked for; else ahead, by whichever encoder is free, and on a GPU
        the next batch begins before the latents of this one are fetched.
        """
        if self._pipeline.decoders is not None:
            self._pipeline.decoders.wait()
        batches = self._paced(self._pipeline.batches(wanted, self.batch, group_size), total)
        encoding = self._when_asked(batches) if self._at_once == 1 else self._ahead(batches)
        for group, cut, parts in encoding:
            self.cut += cut
            yield EncodedBatch(group, cut, partial(self._checked, parts))

    @property
    def notes(self) -> dict[str, int]:
        """The notes of media on decoded items, and of how many."""
        return dict(self._pipeline.notes)

    def warnings(self) -> list[str]:
        """Notes for the user on the run, a sentence each."""
        warnings = []
        if self.limit < math.inf:
            warnings.append(
                f"Batches of {self.spec.name} were cut to {self.limit} to fit in memory."
            )
        decoders = self._pipeline.decoders
        if decoders is not None and decoders.failure:
            why = decoders.failure
            warnings.append(f"Threads decoded for {self.spec.name}, not processes: {why}.")
        elif decoders is not None and decoders.ready and self._started:
            warnings.append(
                f"{decoders.count} processes decoded for {self.spec.name}, which threads were too "
                "slow for. To stay with threads: --decode-processes 0"
            )
        return [*warnings, *failure(self.spec, self.runtime), *self.encoders[0].notes()]

    # -- inside ----------------------------------------------------------------------------------

    def _paced(
        self, batches: Iterator[tuple[int, Collated]], count: int
    ) -> Iterator[tuple[int, Collated]]:
        """The batches of `count` items. If the encoders wait for them and cores are free, processes
        are started that decode."""
        pace = Pace(count, self._pipeline.workers)
        while True:
            began = time.perf_counter()
            if (found := next(batches, None)) is None:
                return
            if self._may_start and not self._started:
                idle = self._at_once in (1, self._free.qsize())
                pace.came(len(found[1].index), (time.perf_counter() - began) * idle)
                if processes := pace.processes():
                    self._pipeline.start_processes(processes)
                    self._started = True
            yield found

    def _when_asked(self, batches: Iterable[tuple[int, Collated]]) -> Iterator[_Batch]:
        for group, batch in batches:
            yield group, batch.cut, partial(self._halved, self.encoders[0], batch)

    def _ahead(self, batches: Iterable[tuple[int, Collated]]) -> Iterator[_Batch]:
        for number in range(self._at_once):
            self._free.put(self.encoders[number % len(self.encoders)])

        def encode(batch: Collated) -> list[_Part]:
            encoder = self._free.get()
            try:
                return list(self._halved(encoder, batch))
            finally:
                self._free.put(encoder)

        ahead: deque[_Batch] = deque()
        for group, batch in batches:
            ahead.append((group, batch.cut, self._devices.submit(encode, batch).result))
            if len(ahead) > 2 * self._at_once:
                yield ahead.popleft()
        yield from ahead

    def _checked(self, parts: _Parts) -> Iterator[_Part]:
        """The parts of a batch, of the same form as those before."""
        for index, latents in parts():
            self._check_form(latents)
            yield index, latents

    def _halved(self, encoder: Encoder, batch: Collated) -> Iterator[_Part]:
        """(items, latents) of a batch, halved for as long as the device has not room."""
        index = batch.index
        if not index:
            return
        if len(index) <= self.limit:
            latents = self._attempt(encoder, batch)
            if latents is not None:
                yield index, latents
                return
            self._halve(len(index))
        size = int(self.limit)
        for at in range(0, len(index), size):
            yield from self._halved(encoder, self._pipeline.collate(index[at : at + size]))

    def _attempt(self, encoder: Encoder, batch: Collated) -> Latents | None:
        """The latents as the contract wants them, or None if the device is out of memory."""
        device, transfer = self._places[id(encoder)]
        with locks_of(encoder).encode:
            encoder.runtime = self.runtime
            try:
                with torch.no_grad(), as_current(device):
                    given = transfer.sent(batch.batch) if encoder.on_device else batch.batch
                    returned = encoder.encode(given, self.view)
                    fetched = transfer.fetched(returned)
                if fetched is None:
                    return self._latents(returned, batch)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                return None
            finally:
                encoder.runtime = None
        return self._latents(fetched(), batch)

    def _latents(self, returned: Any, batch: Collated) -> Latents:
        def describe(i: int) -> str:
            return self.items.describe(batch.index[i])

        return latents_of(self.spec, self.view, returned, len(batch.index), describe)

    def _check_form(self, latents: Latents) -> None:
        """Raise `ContractError` where batches differ in form."""
        if self._form is None:
            self._form = latents.form
        if self._form != latents.form:
            (was_ragged, shape), (ragged, now) = self._form, latents.form
            raise ContractError(
                f"Encoder '{self.spec.name}'",
                f"{'padded ' if was_ragged else ''}latents of shape {list(shape)} as before",
                f"{'padded ' if ragged else ''}{list(now)}",
            )

    def _halve(self, rows: int) -> None:
        if rows == 1:
            raise FusemixError(
                f"{self.device} has not memory enough for {self.spec.name} to encode one item.",
                "Use --dtype float16, a smaller encoder, or --device cpu.",
            )
        self.limit = min(self.limit, (rows + 1) // 2)
        empty_cache(self.device)


def can_accelerate(devices: Sequence[torch.device], how: Encoding) -> bool:
    """Whether another runtime than torch can be asked for: on one CPU, in float32.

    Raises `ConfigError` if OpenVINO was asked for and can't be.
    """
    if [d.type for d in devices] == ["cpu"] and how.dtype in ("auto", "float32"):
        return True
    if how.backend == "openvino":
        raise ConfigError(
            f"OpenVINO encodes on the CPU in float32, not on {devices[0]} in {how.dtype}.",
            "Leave out --backend, or add --device cpu --dtype float32.",
        )
    return False


def empty_cache(device: torch.device) -> None:
    """Give cached memory of an accelerator back."""
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()
