"""What an object store's client says, and what it does when the network fails."""

from __future__ import annotations

import sys
import threading
import time
from datetime import timedelta

import pytest
from object_server import serving

from fusemix_core.errors import ArtefactError, ConfigError, MissingDependencyError
from fusemix_core.latents import bucket as bucket_module
from fusemix_core.latents.bucket import Bucket, checked_url


@pytest.fixture(scope="module")
def server():
    with serving() as found:
        found.bucket("bucket")
        yield found


@pytest.fixture(autouse=True)
def credentials(server, monkeypatch):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def soon(monkeypatch):
    """Retry for a moment only."""
    limits = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
    monkeypatch.setattr(bucket_module, "RETRY", bucket_module.RETRY | limits)


def test_objects_are_put_listed_read_renamed_and_deleted(tmp_path):
    bucket = Bucket("s3://bucket/one/")
    assert list(bucket.list("latents")) == [] and not bucket.has("latents/a")
    (tmp_path / "a").write_bytes(b"0123456789")
    bucket.put("latents/a", tmp_path / "a")
    bucket.put("latents/deep/b", b"xyz")
    bucket.put("other", b"")
    assert [(o.name, o.size) for o in bucket.list("latents")] == [("a", 10), ("deep/b", 3)]
    assert bucket.has("latents/a") and bucket.read("latents/a", 2, 5) == b"234"
    assert bucket.read("latents/a", 8, 50) == b"89"
    bucket.rename("latents/a", "latents/a.bad")
    bucket.delete("latents/deep/b")
    bucket.delete("latents/deep/b")
    assert [o.name for o in bucket.list("latents")] == ["a.bad"]
    with pytest.raises(FileNotFoundError):
        bucket.read("latents/a", 0, 1)


def test_large_files_go_up_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(bucket_module, "PIECE", 5 << 20)
    data = bytes(range(256)) * (12 << 12)
    (tmp_path / "large").write_bytes(data)
    bucket = Bucket("s3://bucket/parts")
    bucket.put("large", tmp_path / "large")
    assert bucket.read("large", 0, len(data)) == data


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("/a/folder", "is not the address of an object store"),
        ("ftp://host/x", "is not the address of an object store"),
        ("s3://", "is not the address of an object store"),
        ("s3://key:secret@bucket/x", "more in it than a bucket and a prefix"),
        ("s3://key@bucket/x", "more in it than a bucket and a prefix"),
        ("az://container/x?sig=secret", "more in it than a bucket and a prefix"),
        ("s3://bucket/a/../b", "has '..' in it"),
    ],
)
def test_addresses_that_are_refused(url, says):
    with pytest.raises(ConfigError, match=says) as error:
        checked_url(url)
    assert "secret" not in str(error.value)
    assert "s3://bucket/prefix" in error.value.hint or "environment" in error.value.hint


def test_addresses_of_other_stores():
    for url in ("gs://bucket/a", "az://container/a", "abfss://container@account/a", "s3://b"):
        assert checked_url(f"{url}/") == url


def test_without_the_package_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingDependencyError) as error:
        Bucket("s3://bucket/x")
    assert error.value.hint == "pip install 'obstore>=0.8'"


def test_a_bucket_that_is_missing():
    bucket = Bucket("s3://no-such-bucket/x")
    for act in (
        lambda: list(bucket.list("latents")),
        lambda: bucket.put("a", b"1"),
        lambda: bucket.read("a", 0, 1),
    ):
        with pytest.raises(ArtefactError, match="there is no such bucket") as error:
            act()
        assert error.value.hint == "Create it, or correct its name."


def test_without_credentials_the_error_names_the_variables(monkeypatch):
    soon(monkeypatch)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    began = time.monotonic()
    with pytest.raises(ArtefactError, match="there are no credentials") as error:
        list(Bucket("s3://bucket/x").list("latents"))
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in error.value.hint
    assert time.monotonic() - began < 30


def test_credentials_that_are_refused():
    bucket = Bucket("s3://bucket/x")
    refused = bucket._api.exceptions.PermissionDeniedError("no", "403 Forbidden")
    error = bucket._explanation(refused, "written")
    assert error.message == "The object store s3://bucket/x can't be written: it refuses the " + (
        "credentials."
    )
    assert "AWS_ACCESS_KEY_ID" in error.hint


def test_messages_have_no_queries_of_addresses():
    bucket = Bucket("s3://bucket/x")
    error = bucket._explanation(OSError("GET https://h/x?sig=secret failed\nmore"), "read")
    assert "https://h/x failed" in error.message and "secret" not in error.message


def test_a_server_that_is_away_for_a_moment_costs_no_run_and_one_that_stays_away_says_so(
    monkeypatch,
):
    with serving() as away:
        monkeypatch.setenv("AWS_ENDPOINT_URL", away.address)
        away.bucket("moment")
        bucket = Bucket("s3://moment/x")
        bucket.put("a", b"before")
    port = int(away.address.rpartition(":")[2])
    back = threading.Event()

    def come_back():
        time.sleep(0.5)
        with serving(port):
            back.wait(30)

    thread = threading.Thread(target=come_back)
    thread.start()
    bucket.put("b", b"after")
    assert bucket.read("a", 0, 9) == b"before" and bucket.read("b", 0, 9) == b"after"
    back.set()
    thread.join()

    soon(monkeypatch)
    gone = Bucket("s3://moment/x")
    with pytest.raises(ArtefactError, match=r"can't be written: .*after \d retries") as error:
        gone.put("c", b"never")
    assert "run the same command again: finished shards are kept" in error.value.hint


def test_an_answer_that_breaks_off_is_asked_for_again(monkeypatch):
    bucket = Bucket("s3://bucket/broken")
    bucket.put("a", b"0123")
    real, asked = bucket._api.get_range, []

    class Api:
        exceptions = bucket._api.exceptions

        def get_range(self, *args, **kwargs):
            asked.append(args)
            if len(asked) < 3:
                raise self.exceptions.GenericError("error reading a body from connection")
            return real(*args, **kwargs)

    bucket._api = Api()
    assert bucket.read("a", 0, 4) == b"0123" and len(asked) == 3
