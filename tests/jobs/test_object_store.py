"""`--store s3://…` from beginning to end: one machine encodes, the next reuses its latents."""

import json
import uuid

import pytest
from object_server import CREDENTIALS, serving
from pairs import write_world
from toys import ToyImage, ToyText
from typer.testing import CliRunner

from fusemix_core import align, encode
from fusemix_core.cli.app import app
from fusemix_core.errors import ConfigError
from fusemix_core.jobs.evaluate import evaluate
from fusemix_core.runs.reporter import Reporter

ENCODERS = {"image": ToyImage, "text": ToyText}
FAST = {"recipe": "cca", "overrides": ["dim=4"], "device": "cpu"}


@pytest.fixture(scope="module")
def server():
    with serving() as found:
        yield found


@pytest.fixture
def url(server, monkeypatch):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server.bucket(f"test-{uuid.uuid4().hex}") + "/latents of us"


class Log(Reporter):
    def __init__(self):
        self.encoded = set()

    def encoding(self, name, done, total):
        self.encoded.add((name, total))


def on_machine(monkeypatch, folder):
    monkeypatch.setenv("FUSEMIX_HOME", str(folder))
    return Log()


def test_a_fit_keeps_its_latents_in_an_object_store_and_a_second_machine_encodes_nothing(
    tmp_path, url, server, monkeypatch
):
    data = write_world(tmp_path / "w")
    log = on_machine(monkeypatch, tmp_path / "a")
    first = align(ENCODERS, data, out=tmp_path / "ra", store=url, reporter=log, **FAST)
    assert log.encoded == {("toy-image", 64), ("toy-text", 64)}
    assert not (tmp_path / "a/latents").exists()
    assert sum(name.endswith(".safetensors") for name in server.objects(url)) == 2

    log = on_machine(monkeypatch, tmp_path / "b")
    second = align(ENCODERS, data, out=tmp_path / "rb", store=url, reporter=log, **FAST)
    assert log.encoded == set()
    saved = [(tmp_path / r / "model/model.safetensors").read_bytes() for r in ("ra", "rb")]
    assert saved[0] == saved[1] and first.results["test"] == second.results["test"]

    # Everything else finds it by the environment.
    monkeypatch.setenv("FUSEMIX_STORE", url)
    evaluate(second.model, data, reporter=log)
    encode({"text": ToyText}, data, reporter=log)
    assert log.encoded == set()
    rows = json.loads(CliRunner().invoke(app, ["cache", "list", "--json"]).stdout)
    assert {(r["encoder"], r["items"]) for r in rows} == {("toy-image", 64), ("toy-text", 64)}

    # What runs and models keep is the address; credentials are in the environment only.
    kept = [p for r in ("ra", "rb", "a", "b") for p in (tmp_path / r).rglob("*") if p.is_file()]
    assert any(url.encode() in p.read_bytes() for p in kept if p.name == "config.toml")
    assert not any(url.encode() in p.read_bytes() for p in kept if "model" in p.parts)
    for secret in CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"]:
        assert not any(secret.encode() in p.read_bytes() for p in kept)


def test_the_command_line_lists_verifies_and_prunes(tmp_path, url, server):
    data = write_world(tmp_path / "w", count=20)
    encode({"text": ToyText}, data, store=url)
    run = CliRunner().invoke
    assert "toy-text" in run(app, ["cache", "list", "--store", url]).stdout
    assert run(app, ["cache", "verify", "--store", url]).exit_code == 0
    (name,) = (n for n in server.objects(url) if n.endswith(".safetensors"))
    server.put(url, name, server.objects(url)[name][:-1] + b"\0")
    done = run(app, ["cache", "verify", "--json", "--store", url])
    assert done.exit_code == 1 and json.loads(done.stdout)[0]["path"] == f"{url}/{name}"
    assert "1 files deleted" in run(app, ["cache", "prune", "--store", url]).stdout
    assert "Nothing is cached in s3://" in run(app, ["cache", "list", "--store", url]).stdout


def test_an_address_with_credentials_is_refused_before_anything_is_written(tmp_path):
    data = write_world(tmp_path / "w", count=20)
    with pytest.raises(ConfigError, match="more in it than a bucket and a prefix"):
        align(ENCODERS, data, out=tmp_path / "r", store="s3://key:secret@bucket/x", **FAST)
    assert not (tmp_path / "r").exists()
