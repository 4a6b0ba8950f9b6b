"""Micro-batches, and what happens when there is more work than the server can hold."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fusemix_serve import Limits, Settings, create_app
from fusemix_serve.batching import Batcher
from fusemix_serve.inputs import Inputs
from fusemix_serve.metrics import Metrics
from fusemix_serve.replies import Refused
from fusemix_serve.served import Workers
from serve_client import data_uri, image_bytes
from starlette.testclient import TestClient


@pytest.fixture
def executor():
    with ThreadPoolExecutor(1) as executor:
        yield executor


def run(executor, work, requests, **how):
    """The results of requests that come at once; exceptions in their places."""

    async def all_of_them():
        batcher = Batcher(work, executor, "text", Metrics(), **how)
        return await asyncio.gather(*(batcher(one) for one in requests), return_exceptions=True)

    return asyncio.run(all_of_them())


def test_requests_at_once_share_a_batch_and_get_their_own_results(executor):
    batches = []

    def work(items):
        batches.append(list(items))
        return torch.tensor([[float(i)] for i in items])

    requests = [[i, i + 100] for i in range(10)]
    found = run(executor, work, requests, rows=64)
    assert [rows[:, 0].tolist() for rows in found] == requests
    assert len(batches) == 1 and len(batches[0]) == 20


def test_a_batch_has_no_more_rows_than_it_may_unless_one_request_has(executor):
    sizes = []

    def work(items):
        sizes.append(len(items))
        return items

    found = run(executor, work, [[1] * 6, [2] * 6, [3] * 30, [4]], rows=10)
    assert found == [[1] * 6, [2] * 6, [3] * 30, [4]]
    assert sizes == [6, 6, 30, 1]


def test_a_bad_request_does_not_spoil_those_in_its_batch(executor):
    def work(items):
        if "bad" in items:
            raise ValueError("bad")
        return items

    found = run(executor, work, [["a"], ["bad"], ["b", "c"]])
    assert found[0] == ["a"] and found[2] == ["b", "c"] and isinstance(found[1], ValueError)


def test_more_than_may_wait_is_refused_with_the_time_to_ask_again(executor):
    found = run(executor, lambda items: items, [[1] * 5, [2] * 5, [3] * 5], queued=10)
    assert found[:2] == [[1] * 5, [2] * 5]
    assert found[2].status == 429 and found[2].headers == {"Retry-After": "1"}
    # One request that is larger than the queue is worked on, if nothing else waits.
    assert run(executor, lambda items: items, [[1] * 50], queued=10) == [[1] * 50]


def test_a_batcher_works_again_after_it_was_idle(executor):
    async def twice():
        batcher = Batcher(lambda items: items, executor, "text", Metrics(), wait=0)
        first = await batcher([1])
        await asyncio.sleep(0.01)
        return first, await batcher([2])

    assert asyncio.run(twice()) == ([1], [2])


def test_who_gives_up_waiting_does_not_hold_up_the_others(executor):
    async def one_leaves():
        batcher = Batcher(lambda items: items, executor, "text", Metrics(), wait=0.05)
        leaving, staying = (asyncio.create_task(batcher([i])) for i in (1, 2))
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    assert asyncio.run(one_leaves()) == [2]


def test_decoded_items_beyond_the_budget_are_refused():
    workers = Workers(Settings(decoded=1000), Metrics())
    with (
        workers.holding(900),
        pytest.raises(Refused, match="decode") as caught,
        workers.holding(200),
    ):
        pass
    assert caught.value.status == 429
    with workers.holding(5000):  # a request that fits the limits is served if nothing else is held
        pass
    with workers.holding(900):
        pass
    workers.close()


def test_requests_beyond_those_in_flight_get_429(models, monkeypatch):
    begun, done = threading.Event(), threading.Event()
    model = models["photos"]
    encode = type(model).encode

    def slow(self, modality, items, *rest, **how):
        if items == ["a map"]:  # loads the encoder as the server starts
            return encode(self, modality, items, *rest, **how)
        begun.set()
        assert done.wait(60)
        return encode(self, modality, items, *rest, **how)

    monkeypatch.setattr(type(model), "encode", slow)
    app = create_app(None, {"photos": model}, Settings(in_flight=1))
    with TestClient(app, base_url="http://localhost") as client:
        answers = []
        first = threading.Thread(
            target=lambda: answers.append(client.post("/v1/embeddings", json={"input": "a"}))
        )
        first.start()
        assert begun.wait(60)
        second = client.post("/v1/embeddings", json={"input": "b"})
        assert second.status_code == 429 and second.headers["Retry-After"] == "1"
        assert second.json()["error"]["code"] == "busy"
        assert client.get("/health").status_code == 200  # always answered
        done.set()
        first.join()
        assert answers[0].status_code == 200
        assert client.post("/v1/embeddings", json={"input": "b"}).status_code == 200
        assert "fusemix_rejected_total 1" in client.get("/metrics").text


def test_images_are_counted_before_any_is_decoded(models, monkeypatch):
    inputs = Inputs(models["photos"], Limits(pixels=300))
    uri = data_uri(image_bytes(), "image/png")
    raw = inputs.items([{"image": uri}] * 3)
    monkeypatch.setattr("fusemix_core.data.media.image.read_image", lambda *_: pytest.fail())
    cost = inputs.cost(raw)
    assert cost.pixels == 3 * 144
    with pytest.raises(Refused, match="300 pixels"):
        inputs.check(cost)
