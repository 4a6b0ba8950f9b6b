"""Models at work in a server: their items are decoded in threads and encoded in micro-batches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from fusemix_core.fused import FusedModel
from fusemix_core.predictor import Predictor
from fusemix_core.saved.model import SavedModel
from fusemix_serve.batching import Batcher, Rows
from fusemix_serve.inputs import Inputs, Raw
from fusemix_serve.metrics import Metrics
from fusemix_serve.replies import Refused, busy
from fusemix_serve.settings import Settings

T = TypeVar("T")
_DECODERS = 4


class Workers:
    """The threads of a server: one that encodes, and some that decode, search and read files.

    Encoders use all cores by themselves, so a second thread of them would gain nothing.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.encoding = ThreadPoolExecutor(1, "encode")
        self._reading = ThreadPoolExecutor(_DECODERS, "read")
        self._held = 0
        self._lock = threading.Lock()

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """The result of work in a thread that may block."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reading, partial(work, *arguments))

    @contextmanager
    def holding(self, memory: int) -> Iterator[None]:
        """Reserve bytes for decoded items inside. Raises `Refused` if too many are held."""
        with self._lock:
            if self._held and self._held + memory > self.settings.decoded:
                raise busy("The server has more to decode than it can hold.")
            self._held += memory
        try:
            yield
        finally:
            with self._lock:
                self._held -= memory

    def close(self) -> None:
        """End the threads, after what they are doing."""
        self.encoding.shutdown(wait=True, cancel_futures=True)
        self._reading.shutdown(wait=True, cancel_futures=True)


class Served:
    """A model under its name, of any kind."""

    def __init__(self, name: str, model: SavedModel, workers: Workers) -> None:
        self.name, self.workers = name, workers
        self.inputs = Inputs(model, workers.settings.limits)
        self._model = model

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of the model."""
        return self._model.modalities

    def batcher(self, work: Callable[[list[Any]], Rows], name: str) -> Batcher:
        """Micro-batches of some work on items."""
        settings = self.workers.settings
        return Batcher(
            work,
            self.workers.encoding,
            name,
            self.workers.metrics,
            rows=settings.batch,
            wait=settings.wait,
            queued=settings.queued,
        )

    async def decoded(self, items: Sequence[Raw], then: Callable[[list[Any]], Any]) -> Any:
        """Decode items and await `then` of them, under the limits and with memory reserved."""
        cost = await self.workers.run(self.inputs.cost, items)
        self.inputs.check(cost)
        with self.workers.holding(cost.memory):
            return await then(await self.workers.run(self.inputs.decode, items))


class ServedFused(Served):
    """A fused model under its name."""

    def __init__(self, name: str, model: FusedModel, workers: Workers) -> None:
        super().__init__(name, model, workers)
        self.model = model
        self._batchers = {m: self.batcher(partial(_encode, model, m), m) for m in model.modalities}

    def load_texts(self) -> None:
        """Encode a text of each modality that takes texts, which loads the encoder. Blocks."""
        for modality, info in self.model.encoders.items():
            if info.takes == "text":
                self.model.encode(modality, ["a map"])

    async def encode(self, items: Sequence[Raw]) -> Tensor:
        """Unit-norm embeddings float32 `[n, dim]` of items of any modalities, in their order.

        Raises:
            Refused: they exceed a limit, or the server is busy.
            DataError: an item can't be decoded.
        """
        return await self.decoded(items, partial(self._encoded, items))

    async def _encoded(self, items: Sequence[Raw], values: list[Any]) -> Tensor:
        places: dict[str, list[int]] = {}
        for i, raw in enumerate(items):
            places.setdefault(raw.modality, []).append(i)
        rows = await asyncio.gather(
            *(self._batchers[m]([values[i] for i in index]) for m, index in places.items())
        )
        found = torch.zeros(len(items), self.model.dim)
        for index, own in zip(places.values(), rows, strict=True):
            found[index] = own
        return found


class ServedPredictor(Served):
    """A predictor under its name."""

    def __init__(self, name: str, model: Predictor, workers: Workers) -> None:
        super().__init__(name, model, workers)
        self.model = model
        self._batcher = self.batcher(partial(_predict, model), "rows")

    async def predict(self, rows: Sequence[Mapping[str, Raw]]) -> list[dict[str, Any]]:
        """The columns of the predictions of each row: modality → item.

        Raises:
            Refused: the rows exceed a limit, or the server is busy.
            DataError: an item can't be decoded.
        """
        items = [raw for row in rows for raw in row.values()]

        async def then(values: list[Any]) -> list[dict[str, Any]]:
            left = iter(values)
            return await self._batcher([{m: next(left) for m in row} for row in rows])

        return await self.decoded(items, then)


def _encode(model: FusedModel, modality: str, items: list[Any]) -> Tensor:
    return model.encode(modality, items)


def _predict(model: Predictor, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The columns of the predictions, row by row."""
    used = {m for row in rows for m in row}
    items = {m: [row.get(m) for row in rows] for m in model.modalities if m in used}
    present = torch.tensor([[m in row for m in model.modalities] for row in rows])
    columns = model.columns(model.scores(items), present)
    return [{name: _plain(of[i]) for name, of in columns.items()} for i in range(len(rows))]


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and value != value else value


def served(models: Mapping[str, SavedModel], workers: Workers) -> dict[str, Served]:
    """The models by name."""
    found: dict[str, Served] = {}
    for name, model in models.items():
        if isinstance(model, FusedModel):
            found[name] = ServedFused(name, model, workers)
        elif isinstance(model, Predictor):
            found[name] = ServedPredictor(name, model, workers)
        else:
            raise TypeError(f"a {type(model).__name__} can't be served")
    return found


def named(models: Mapping[str, Served], name: Any, kind: type[T], what: str) -> T:
    """The model that a request names; the first of its kind if it names none.

    Raises:
        Refused: there is no such model.
    """
    known = {n: model for n, model in models.items() if isinstance(model, kind)}
    if not known:
        raise Refused(404, f"This server has no {what}.")
    if name is None or name == "":
        return next(iter(known.values()))
    if not isinstance(name, str) or name not in known:
        raise Refused(
            404,
            f"There is no {what} named '{str(name)[:60]}' here.",
            f"These are served: {', '.join(known)}.",
            code="model_not_found",
        )
    return known[name]
