"""A server on this machine that embeds by hashing, and can be told to misbehave."""

from __future__ import annotations

import base64
import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fusemix_api.client
import numpy as np
import pytest
from fusemix_api.tiny import hashed

DIM = 8


class Server(ThreadingHTTPServer):
    """`faults` holds what the next requests meet, one each: a function (handler, body) -> None that
    answers, or a dict of changes to the right answer. `seen` holds (path, headers, body)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: deque = deque()
        self.seen: list = []
        self.lock = threading.Lock()
        self.at_once = self.most_at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def texts(self) -> list[str]:
        return [t for _, _, body in self.seen for t in body.get("input") or body["texts"]]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.seen.append((self.path, dict(self.headers), body))
            fault = server.faults.popleft() if server.faults else None
            server.at_once += 1
            server.most_at_once = max(server.at_once, server.most_at_once)
        try:
            if callable(fault):
                fault(self, body)
            else:
                self.answer(200, {**self.right_answer(body), **(fault or {})})
        finally:
            with server.lock:
                server.at_once -= 1

    def answer(self, status: int, content: object, headers: dict | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(data), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)

    def right_answer(self, body: dict) -> dict:
        if self.path.endswith("/v2/embed"):
            rows = [hashed(t, DIM) for t in body["texts"]]
            meta = {"billed_units": {"input_tokens": len(rows)}}
            return {"embeddings": {"float": rows}, "meta": meta}
        data = []
        for i, text in enumerate(body["input"]):
            row = hashed(text, body.get("dimensions", DIM))
            if body["encoding_format"] == "base64":
                row = base64.b64encode(np.asarray(row, "<f4").tobytes()).decode()
            data.append({"object": "embedding", "index": i, "embedding": row})
        return {"data": data[::-1], "usage": {"total_tokens": sum(map(len, body["input"]))}}

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def calm(monkeypatch):
    """No keys or proxies of the machine's owner, short delays."""
    for name in ("OPENAI_API_KEY", "COHERE_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fusemix_api.client, "FIRST_DELAY", 0.01)
