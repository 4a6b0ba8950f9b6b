"""A real object server for tests: moto's, over HTTP, on a free port of this machine."""

from __future__ import annotations

import contextlib
import http.client
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import obstore
from moto.server import ThreadedMotoServer
from obstore.store import from_url

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "of-a-test",
    "AWS_SECRET_ACCESS_KEY": "secret-of-a-test",
    "AWS_REGION": "us-east-1",
}


@dataclass
class Server:
    """A running server. `environment` is what a client needs to find it."""

    address: str
    environment: dict[str, str]

    def bucket(self, name: str) -> str:
        """Make a bucket; its address."""
        asked = http.client.HTTPConnection(self.address.removeprefix("http://"))
        asked.request("PUT", f"/{name}")
        assert asked.getresponse().status == 200
        asked.close()
        return f"s3://{name}"

    def _client(self, url: str):
        return from_url(
            url,
            endpoint=self.address,
            access_key_id="a",
            secret_access_key="b",
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def objects(self, url: str, end: str = "") -> dict[str, bytes]:
        """The objects under an address whose names have this end: name → bytes."""
        client = self._client(url)
        names = sorted(o["path"] for page in obstore.list(client) for o in page)
        return {n: bytes(obstore.get(client, n).bytes()) for n in names if n.endswith(end)}

    def put(self, url: str, name: str, data: bytes) -> None:
        obstore.put(self._client(url), name, data)


@contextlib.contextmanager
def serving(port: int = 0) -> Iterator[Server]:
    """A server for as long as the context lasts."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto.start()
    try:
        address = "http://{}:{}".format(*moto.get_host_and_port())
        yield Server(address, {**CREDENTIALS, "AWS_ENDPOINT_URL": address})
    finally:
        moto.stop()
