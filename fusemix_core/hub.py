"""Weights of a hub without a network: an error within seconds, with what can be used instead."""

from __future__ import annotations

import importlib.util
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from fusemix_core.errors import ArtefactError, MissingDependencyError
from fusemix_core.registry import Registry, registry
from fusemix_core.specs import EncoderSpec, FamilySpec, GeneratorSpec, ModelledSpec

HUB = "https://huggingface.co"
WAIT = 3.0
"""Seconds for an answer of the hub. Its clients try again and again, for half a minute."""
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@contextmanager
def without_waiting(spec: ModelledSpec, registry: Registry = registry) -> Iterator[None]:
    """Inside, an encoder or a generator is loaded. If its weights are a hub's, and there is no
    connection, the hub's clients take files from their cache only.

    Raises:
        ArtefactError: With those that need no hub, if they lack some.
    """
    if not is_of_hub(spec) or os.environ.get("HF_HUB_OFFLINE") or connected():
        yield
        return
    try:
        with _offline():
            yield
    except ArtefactError as error:
        kind = "Generators" if isinstance(spec, GeneratorSpec) else "Encoders"
        others = ", ".join(packaged(registry, type(spec))) or "none is installed"
        raise ArtefactError(
            f"{spec.name} can't be had: its weights ({spec.weights}) are not in the cache, and "
            f"there is no connection to {_host()[0]}.",
            f"{kind} that need no hub: {others}.\n"
            f"Or give a copy on disk: {spec.name}@FOLDER (see docs/how-to/offline.md).",
        ) from error


def is_of_hub(spec: ModelledSpec) -> bool:
    """Whether the weights of an encoder or a generator are fetched from the hub."""
    given = spec.local or spec.sha256 or "://" in spec.weights
    return not given and spec.weights.count("/") == 1


def packaged(registry: Registry = registry, kind: type = EncoderSpec) -> list[str]:
    """The names of the encoders, or generators, whose weights come in a pip package."""
    every = registry.all_generators() if kind is GeneratorSpec else registry.all_encoders()
    specs = [spec for _, spec in every if not isinstance(spec, FamilySpec)]
    return sorted({spec.name for spec in specs if spec.sha256 and spec.weights.count("/")})


def weights_of(spec: ModelledSpec) -> tuple[str, int | None]:
    """Where the weights of an encoder or a generator are, without importing what opens them.

    Returns:
        `here`, on this disk; `hub`, to be fetched, and about how many bytes (None: unknown);
        `service`, behind an API; `not installed`, as a package that it needs is missing; `own`,
        with its own code.
    """
    try:
        spec.check_requirements()
    except MissingDependencyError:
        return "not installed", None
    if isinstance(spec, EncoderSpec) and (spec.price or spec.environment):
        return "service", None
    if not spec.weights:
        return "own", None
    if not is_of_hub(spec) or _cached(spec):
        return "here", None
    return "hub", None if spec.parameters is None else 4 * spec.parameters


def _cached(spec: ModelledSpec) -> bool:
    """Whether the hub's cache has the revision, as it was fetched: whole or not."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    snapshots = cache / f"models--{spec.weights.replace('/', '--')}" / "snapshots"
    return (snapshots / spec.revision).is_dir()


@cache
def connected() -> bool:
    """Whether the hub, or the proxy before it, answers within `WAIT` seconds."""
    found: list[bool] = []
    address = _host()
    if proxy := getproxies().get("https") or getproxies().get("all"):
        given = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        address = given.hostname or "localhost", given.port or 443

    def ask() -> None:
        try:
            socket.create_connection(address, timeout=WAIT).close()
            found.append(True)
        except OSError:
            found.append(False)

    asking = threading.Thread(target=ask, daemon=True)  # looking up the name has no time limit
    asking.start()
    asking.join(WAIT)
    return bool(found and found[0])


def _host() -> tuple[str, int]:
    address = urlsplit(os.environ.get("HF_ENDPOINT") or HUB)
    return address.hostname or "huggingface.co", address.port or 443


@contextmanager
def _offline() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _OFFLINE}
    os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    constants, constant = None, False
    if importlib.util.find_spec("huggingface_hub") is not None:
        from huggingface_hub import constants

        # Read once, at import, so that the variable alone may come too late.
        constant, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        if constants is not None:
            constants.HF_HUB_OFFLINE = constant
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
