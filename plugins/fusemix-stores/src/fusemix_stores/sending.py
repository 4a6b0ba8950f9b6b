"""Finds the store of an address."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fusemix_core.errors import ConfigError, MissingDependencyError, UnknownNameError
from fusemix_core.project import how_to_install

if TYPE_CHECKING:
    from fusemix_core.search import Collection

STORES = {
    "lance": ("fusemix_stores.tables:send_lance", "lance"),
    "qdrant": ("fusemix_stores.qdrant:send_qdrant", "qdrant_client"),
    "pgvector": ("fusemix_stores.postgres:send_pgvector", "psycopg"),
    "parquet": ("fusemix_stores.tables:send_parquet", "pyarrow"),
}
"""Scheme → the function that writes to it, and the module that it needs."""


def send(collection: Collection, to: str) -> list[str]:
    """Write the vectors and columns of a collection to an engine.

    Vectors are lifted, so the engine's inner product ranks as the model's scorer. A table of that
    name is replaced.

    Args:
        collection: stays as it is.
        to: `lance://`, `qdrant://`, `pgvector://` or `parquet://` and the place; or a path that
            ends in .lance or .parquet.

    Returns:
        Lines on how to search it.

    Raises:
        UnknownNameError: There is no store of that kind.
        MissingDependencyError: Its client is not installed.

    Example:
        send(Collection.open("photos.index"), "lance://photos.lance")
    """
    from fusemix_stores.rows import Source

    url = urlsplit(to)
    kind = url.scheme.partition("+")[0]
    if not kind and (suffix := Path(to).suffix.lower().lstrip(".")) in ("lance", "parquet"):
        kind = suffix
    if kind not in STORES:
        note = "Such as lance://photos.lance"
        raise UnknownNameError.of("store", kind or to, STORES, note)
    if not (url.netloc or url.path):
        raise ConfigError(f"'{to}' names no place.", f"Such as {kind}://photos")
    target, module = STORES[kind]
    if find_spec(module) is None:
        raise MissingDependencyError(
            f"{kind}:// needs the package {module}.", how_to_install(f"fusemix-stores[{kind}]")
        )
    where, _, name = target.partition(":")
    return getattr(importlib.import_module(where), name)(Source(collection), url)
