"""Without a network the hub's encoders fail in seconds, and the error names others."""

import dataclasses
import os
import socket
import threading
import time

import pytest

from fusemix_core import hub
from fusemix_core.errors import ArtefactError
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec

SPEC = EncoderSpec(name="far", modality="image", target="x:X", weights="someone/model", dim=3)


@pytest.fixture
def no_network(monkeypatch):
    """No name is found, which takes until the test is over; and no setting says so."""
    over = threading.Event()

    def connect(*_, **__):
        over.wait(30)
        raise OSError("no such name")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(hub, "WAIT", 0.2)
    monkeypatch.setattr(socket, "create_connection", connect)
    hub.connected.cache_clear()
    yield
    over.set()
    hub.connected.cache_clear()


def test_the_error_names_encoders_that_need_no_hub(no_network):
    pytest.importorskip("fusemix_starter")
    began = time.monotonic()
    says = "no connection to huggingface.co"
    with pytest.raises(ArtefactError, match=says) as raised, hub.without_waiting(SPEC):
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        raise ArtefactError("The files can't be had.")
    assert time.monotonic() - began < 5 and "HF_HUB_OFFLINE" not in os.environ
    assert "efficientnet-lite0" in raised.value.hint and "minilm" in raised.value.hint


def test_weights_in_the_cache_are_loaded_without_a_network(no_network):
    with hub.without_waiting(SPEC):
        loaded = True
    assert loaded


def test_only_weights_of_a_hub_are_asked_for(no_network):
    for plugin in ("fusemix_dinov2", "fusemix_chem", "fusemix_starter"):
        pytest.importorskip(plugin)
    specs = [s for _, s in registry.all_encoders() if isinstance(s, EncoderSpec)]
    asked = {spec.name for spec in specs if hub.is_of_hub(spec)}
    assert "dinov2-base" in asked and not asked & {*hub.packaged(), "text-embedding-3-large"}
    assert {"efficientnet-lite0", "minilm", "chemnet"} <= set(hub.packaged())


def test_a_proxy_is_asked_in_place_of_the_hub(no_network, monkeypatch):
    asked = []

    def connect(address, timeout):
        asked.append(address)
        return socket.socket()

    monkeypatch.setattr(hub, "getproxies", lambda: {"https": "http://proxy:81"})
    monkeypatch.setattr(socket, "create_connection", connect)
    assert hub.connected() and asked == [("proxy", 81)]


def test_who_said_offline_is_not_asked(no_network, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("asked"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ArtefactError, match="as it was"), hub.without_waiting(SPEC):
        raise ArtefactError("as it was")


# -- where weights are -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"parameters": 5}, ("hub", 20)),
        ({}, ("hub", None)),
        ({"weights": ""}, ("own", None)),
        ({"local": True}, ("here", None)),
        ({"weights": "package/file", "sha256": "0" * 64}, ("here", None)),
        ({"price": 0.1}, ("service", None)),
        ({"requires": {"no_such_package": "no-such-package"}}, ("not installed", None)),
    ],
)
def test_where_weights_are(monkeypatch, tmp_path, changes, expected):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert hub.weights_of(dataclasses.replace(SPEC, **changes)) == expected


@pytest.mark.parametrize("revision", ["", "abc"])
def test_weights_that_were_fetched_are_here(monkeypatch, tmp_path, revision):
    """The folders are those of huggingface_hub itself."""
    file_download = pytest.importorskip("huggingface_hub.file_download")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    spec = dataclasses.replace(SPEC, revision=revision, parameters=5)
    name = file_download.repo_folder_name(repo_id=spec.weights, repo_type="model")
    (tmp_path / name / "snapshots" / (revision or "main-as-it-was")).mkdir(parents=True)
    assert hub.weights_of(spec) == ("here", None)
    assert hub.weights_of(dataclasses.replace(spec, revision="other")) == ("hub", 20)
