"""A server stops when told to, after what it is doing, and starts again after it was killed."""

from __future__ import annotations

import signal
import socket
import threading
import time
import urllib.error

import pytest
from fusemix_serve import create_app
from serve_client import ask
from served_toys import ENCODERS
from starlette.testclient import TestClient
from typer.testing import CliRunner

from fusemix_core.cli.app import app
from fusemix_core.cli.plugins_app import add_plugin_commands
from fusemix_core.errors import ConfigError
from fusemix_core.registry import registry


@pytest.fixture(autouse=True, scope="module")
def command():
    add_plugin_commands(app, registry)


def test_sigterm_ends_it_without_an_error(start):
    for number in (signal.SIGTERM, signal.SIGINT):
        with start("photos") as server:
            assert ask(f"{server.url}/health").status == 200
            server.process.send_signal(number)
            assert server.process.wait(60) == 0
            with pytest.raises((urllib.error.URLError, ConnectionError)):
                ask(f"{server.url}/health")


def test_sigterm_lets_running_requests_finish(start):
    with start("photos") as server:
        ask(f"{server.url}/v1/embeddings", {"input": "a"})  # the encoder is loaded
        answers = []
        texts = [" ".join([f"word{i}"] * 400) for i in range(2048)]
        asking = threading.Thread(
            target=lambda: answers.append(ask(f"{server.url}/v1/embeddings", {"input": texts}))
        )
        asking.start()
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if b"fusemix_in_flight 2" in ask(f"{server.url}/metrics").body:
                break
        server.process.terminate()
        asking.join()
        assert answers[0].status == 200 and len(answers[0].json["data"]) == 2048
        assert server.process.wait(60) == 0


def test_killed_it_starts_again_on_its_port_and_answers_the_same(start):
    with start("photos") as first:
        before = ask(f"{first.url}/v1/embeddings", {"input": ["a red car"]}).json
        first.process.kill()
        first.process.wait(60)
    with start("photos", port=first.port) as second:
        assert second.port == first.port
        assert ask(f"{second.url}/v1/embeddings", {"input": ["a red car"]}).json == before


def test_an_index_and_further_runs_are_served_and_a_kill_loses_nothing(start, index):
    asked = {"queries": [{"modality": "text", "text": "a red car"}], "to": "image", "k": 5}

    def hits(url):
        return [hit["key"] for hit in ask(f"{url}/api/search", asked).json["hits"]]

    with start(index.name, "things") as first:
        found = hits(first.url)
        assert len(found) == 5 and b"<html" in ask(f"{first.url}/").body
        names = [m["id"] for m in ask(f"{first.url}/v1/models").json["data"]]
        assert names == ["photos.index", "things"]
        first.process.kill()
        first.process.wait(60)
    with start(index.name) as second:
        assert hits(second.url) == found


def test_a_port_that_is_taken_is_an_error_with_a_way_out(world):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        own = [f"--encoder={m}={name}" for m, name in ENCODERS.items()]
        shown = CliRunner().invoke(app, ["serve", str(world / "photos"), "--port", port, *own])
    assert shown.exit_code == 2 and "can't be listened on" in shown.output
    assert "--port 0" in shown.output


def test_other_machines_are_refused_without_a_token(world, monkeypatch):
    monkeypatch.delenv("FUSEMIX_TOKEN", raising=False)
    shown = CliRunner().invoke(app, ["serve", str(world / "photos"), "--host", "192.168.1.2"])
    assert shown.exit_code == 2 and "needs a token" in shown.output


def test_two_models_of_one_name_and_unknown_modalities_are_refused(world, index):
    photos = str(world / "photos")
    shown = CliRunner().invoke(app, ["serve", photos, f"{photos}/model"])
    assert shown.exit_code == 2 and "Two models are named 'photos'" in shown.output
    shown = CliRunner().invoke(app, ["serve", str(index), str(index)])
    assert shown.exit_code == 2 and "one index" in shown.output
    shown = CliRunner().invoke(app, ["serve", photos, "--encoder", "video=a"])
    assert shown.exit_code == 2 and "No served model has the modality 'video'" in shown.output


def test_a_client_that_sends_nothing_more_is_dropped_in_time(models):
    import asyncio

    from fusemix_serve import Settings, create_app

    application = create_app(None, {"photos": models["photos"]}, Settings(timeout=0.05))
    sent = []

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/embeddings", "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "scheme": "http", "server": ("localhost", 1), "root_path": "",
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(application(scope, receive, send), 30))
    assert sent[0]["status"] == 408


def test_it_is_ready_once_the_encoder_of_texts_is_loaded(models, monkeypatch):
    model, begun, done = models["photos"], threading.Event(), threading.Event()
    encode, asked = type(model).encode, []

    def slow(self, modality, items, *rest, **how):
        asked.append(modality)
        begun.set()
        assert done.wait(60)
        return encode(self, modality, items, *rest, **how)

    monkeypatch.setattr(type(model), "encode", slow)
    with TestClient(create_app(None, {"photos": model}), base_url="http://localhost") as client:
        assert begun.wait(60) and asked == ["text"]
        answer = client.get("/ready")
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "loading"
        assert client.get("/health").status_code == 200
        done.set()
        until = time.monotonic() + 60
        while client.get("/ready").status_code != 200 and time.monotonic() < until:
            time.sleep(0.02)
        assert client.get("/ready").json() == {"status": "ready"}


def test_it_is_not_ready_if_an_encoder_cannot_be_loaded(models, monkeypatch):
    def failing(self, *_, **__):
        raise ConfigError("There is no such encoder.")

    monkeypatch.setattr(type(models["photos"]), "encode", failing)
    app = create_app(None, {"photos": models["photos"]})
    with TestClient(app, base_url="http://localhost") as client:
        until = time.monotonic() + 60
        while "loading" in client.get("/ready").text and time.monotonic() < until:
            time.sleep(0.02)
        answer = client.get("/ready")
        assert answer.status_code == 503 and "no such encoder" in answer.text
