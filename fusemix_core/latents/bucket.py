"""An object store, such as `s3://bucket/prefix`, through obstore: list, read, put, rename, delete.

Credentials come from the environment only, by the names that the store's own tools use. Every
request is retried for three minutes at most. A lasting failure is an `ArtefactError` that says
what to do.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fusemix_core.errors import ArtefactError, ConfigError, MissingDependencyError, short

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

EXTRA = "fusemix[objects]"
SCHEMES = ("s3", "gs", "az", "abfs", "abfss")
RETRY: RetryConfig = {
    "max_retries": 20,
    "retry_timeout": timedelta(minutes=3),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=15),
        "base": 2,
    },
}
"""How often and how long one request is tried."""
_CLIENT: ClientConfig = {"timeout": timedelta(minutes=2), "connect_timeout": timedelta(seconds=10)}
"""Of one request, which moves `PIECE` at most."""
PIECE = 8 << 20
"""Bytes that are read, or put as one part, at once."""
_BODY_TRIES = 3
"""How often a read is begun again whose answer broke off."""

_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, AWS_REGION; for a "
    "server that isn't Amazon's AWS_ENDPOINT_URL)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_NO_BUCKET = ("NoSuchBucket", "bucket does not exist", "ContainerNotFound", "InvalidBucketName")
_NO_CREDENTIALS = ("169.254.169.254", "metadata.google.internal", "missing credentials")
_REFUSED = (
    "401 Unauthorized",
    "403 Forbidden",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AuthenticationFailed",
)
AGAIN = "then run the same command again: finished shards are kept."


@dataclass(frozen=True)
class Object:
    """An object as a listing describes it. `name` is relative to the folder that was listed."""

    name: str
    size: int
    tag: str
    modified: datetime


def checked_url(url: str) -> str:
    """The address of an object store, without a slash at its end.

    Raises `ConfigError` if it isn't one, or has credentials in it.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"'{short(url)}' is not an address: {error}.", _EXAMPLE) from error
    shown = short(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")
    if parts.scheme not in SCHEMES or not parts.netloc:
        raise ConfigError(f"'{shown}' is not the address of an object store.", _EXAMPLE)
    abfs = parts.scheme.startswith("abfs") and ":" not in parts.netloc  # container@account
    if parts.query or parts.fragment or ("@" in parts.netloc and not abfs):
        raise ConfigError(
            f"The address {shown} has more in it than a bucket and a prefix.",
            f"Credentials are taken from the environment: {_credentials(parts.scheme)}.",
        )
    if ".." in parts.path.split("/"):
        raise ConfigError(f"The prefix of {shown} has '..' in it.", _EXAMPLE)
    return url.rstrip("/")


_EXAMPLE = f"Example: s3://bucket/prefix. The schemes are {', '.join(SCHEMES)}."


class Bucket:
    """The objects under one address. Names are relative to it. Safe to use from threads.

    Example:

        bucket = Bucket("s3://bucket/prefix")
        bucket.put("latents/a.bin", Path("a.bin"))
        bucket.read("latents/a.bin", 0, 16)

    Raises:
        ConfigError: If `url` isn't the address of an object store.
        MissingDependencyError: If obstore is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = checked_url(url)
        try:
            import obstore
        except ImportError as error:
            raise MissingDependencyError.of(self.url, "obstore", EXTRA) from error
        self._api = obstore
        self._client: tuple[int, Any] | None = None

    def list(self, folder: str) -> Iterator[Object]:
        """The objects whose names begin with `folder` and a slash."""
        with self._explained("read"):
            for page in self._api.list(self._store, folder):
                for found in page:
                    name = found["path"].removeprefix(folder).lstrip("/")
                    tag = found["e_tag"] or ""
                    yield Object(name, found["size"], tag, found["last_modified"])

    def read(self, name: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of an object, fewer if it is shorter. Raises FileNotFoundError."""
        with self._explained("read"):
            for left in reversed(range(_BODY_TRIES)):
                try:
                    return bytes(self._api.get_range(self._store, name, start=start, end=end))
                except self._api.exceptions.GenericError as error:
                    # Requests are retried by obstore, an answer that breaks off is not.
                    if not left or "retries" in str(error) or "status code" in str(error):
                        raise
        raise AssertionError("unreachable")

    def put(self, name: str, content: Path | bytes) -> None:
        """Put a file or bytes under a name. The object appears when it is whole; large files go up
        in parts."""
        with self._explained("written"):
            self._api.put(self._store, name, content, chunk_size=PIECE, max_concurrency=4)

    def has(self, name: str) -> bool:
        """Whether there is an object of this name."""
        with self._explained("read"):
            try:
                self._api.head(self._store, name)
            except FileNotFoundError as error:
                if any(word in str(error) for word in _NO_BUCKET):
                    raise
                return False
        return True

    def rename(self, name: str, to: str) -> None:
        """Copy an object, then delete it under its old name. Raises FileNotFoundError."""
        with self._explained("written"):
            self._api.rename(self._store, name, to)

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""
        with self._explained("written"), contextlib.suppress(FileNotFoundError):
            self._api.delete(self._store, name)

    @property
    def _store(self) -> Any:
        """obstore's client; its threads don't come along into a forked process."""
        if self._client is None or self._client[0] != os.getpid():
            from obstore.store import from_url

            plain = any(
                os.environ.get(name, "").startswith("http://")
                for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")
            )
            options: ClientConfig = {**_CLIENT, "allow_http": True} if plain else _CLIENT
            with self._explained("opened"):
                made = from_url(self.url, client_options=options, retry_config=RETRY)
            self._client = os.getpid(), made
        return self._client[1]

    @contextlib.contextmanager
    def _explained(self, done: str) -> Iterator[None]:
        """Turn what obstore raises into an `ArtefactError`; a missing object stays a
        FileNotFoundError."""
        try:
            yield
        except FileNotFoundError as error:
            if not any(word in str(error) for word in _NO_BUCKET):
                raise
            raise self._explanation(error, done) from error
        except self._api.exceptions.BaseError as error:
            raise self._explanation(error, done) from error

    def _explanation(self, error: Exception, done: str) -> ArtefactError:
        text = str(error)
        names = _credentials(urlsplit(self.url).scheme)
        refused = (
            self._api.exceptions.PermissionDeniedError,
            self._api.exceptions.UnauthenticatedError,
        )
        what = f"The object store {self.url} can't be {done}"
        if any(word in text for word in _NO_BUCKET):
            hint = "Create it, or correct its name."
            return ArtefactError(f"{what}: there is no such bucket.", hint)
        if any(word in text for word in _NO_CREDENTIALS):
            return ArtefactError(f"{what}: there are no credentials.", f"Set {names}.")
        if isinstance(error, refused) or any(word in text for word in _REFUSED):
            return ArtefactError(
                f"{what}: it refuses the credentials.",
                f"Give them the right to list, get, put and delete there, or set others: {names}.",
            )
        return ArtefactError(f"{what}: {_reason(text)}", f"Check the network, {AGAIN}")


def _reason(text: str) -> str:
    """The first line of obstore's message, without the queries of addresses."""
    return re.sub(r"\?\S+", "", text.splitlines()[0].partition("<?xml")[0])[:300].rstrip(" :")


def _credentials(scheme: str) -> str:
    return _CREDENTIALS[{"abfs": "az", "abfss": "az"}.get(scheme, scheme)]
