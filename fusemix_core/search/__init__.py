"""The index: embeddings of a collection on disk, searched, filtered and kept up to date.

`Collection` is what commands and servers use. `Index` (interfaces) keeps the vectors; `flat` is the
one that core brings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusemix_core.search.collection import Collection as Collection
    from fusemix_core.search.found import Found as Found

__all__ = ["Collection", "Found"]


def __getattr__(name: str) -> Any:
    """The classes, imported on first use."""
    if name == "Collection":
        from fusemix_core.search.collection import Collection

        return Collection
    if name == "Found":
        from fusemix_core.search.found import Found

        return Found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
