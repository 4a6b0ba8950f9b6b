"""Micro-batches: what several requests want encoded at the same time is encoded together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

from fusemix_serve.metrics import Metrics
from fusemix_serve.replies import busy


class Rows(Protocol):
    """Results, one per item: a list, an array or a tensor."""

    def __getitem__(self, rows: slice, /) -> Any: ...


@dataclass(eq=False)
class _Waiting:
    items: list[Any]
    answer: asyncio.Future[Any]


class Batcher:
    """Does the work of several requests at once.

    Args:
        work: items → one result per item. Runs in `executor`.
        executor: the thread that computes.
        name: of the kind of items, for the metrics.
        rows: items that are worked on at once. A larger request is worked on by itself.
        wait: seconds in which a batch gathers further requests.
        queued: items that may wait; beyond that, requests are refused with 429.

    Example:
        batcher = Batcher(lambda texts: model.encode("text", texts), executor, "text", metrics)
        rows = await batcher(["a map"])
    """

    def __init__(
        self,
        work: Callable[[list[Any]], Rows],
        executor: Executor,
        name: str,
        metrics: Metrics,
        *,
        rows: int = 64,
        wait: float = 0.004,
        queued: int = 8192,
    ) -> None:
        self._work, self._executor, self._name, self._metrics = work, executor, name, metrics
        self._rows, self._wait, self._queued = rows, wait, queued
        self._waiting: deque[_Waiting] = deque()
        self._count = 0
        self._runner: asyncio.Task[None] | None = None

    async def __call__(self, items: list[Any]) -> Any:
        """The results of the items, after those of earlier requests.

        Raises:
            Refused: too many items wait already.
        """
        if self._count and self._count + len(items) > self._queued:
            raise busy("The server has more to encode than it can hold.")
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(items, answer))
        self._count += len(items)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        """Work on batches until nothing waits."""
        if self._count < self._rows:
            await asyncio.sleep(self._wait)
        while self._waiting:
            batch = self._next()
            items = [item for one in batch for item in one.items]
            await self._answer(batch, items)

    def _next(self) -> list[_Waiting]:
        batch = [self._waiting.popleft()]
        count = len(batch[0].items)
        while self._waiting and count + len(self._waiting[0].items) <= self._rows:
            batch.append(self._waiting.popleft())
            count += len(batch[-1].items)
        self._count -= count
        return batch

    async def _answer(self, batch: list[_Waiting], items: list[Any]) -> None:
        """Results to those who wait. If a batch fails, each request is worked on by itself, so that
        one of them doesn't spoil the others."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._executor, self._work, items)
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].answer.done():
                    batch[0].answer.set_exception(error)
                return
            for one in batch:
                await self._answer([one], one.items)
            return
        self._metrics.batch(self._name, len(items))
        start = 0
        for one in batch:
            end = start + len(one.items)
            if not one.answer.done():  # nobody waits for it any more
                one.answer.set_result(found[start:end])
            start = end
