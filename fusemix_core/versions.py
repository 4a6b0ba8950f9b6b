"""The versions of installed distributions."""

from __future__ import annotations

from functools import cache
from importlib import metadata

from fusemix_core.version import __version__


@cache
def installed_version(distribution: str) -> str | None:
    """The version of a distribution, or None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def version() -> str:
    """The version of fusemix."""
    return __version__
