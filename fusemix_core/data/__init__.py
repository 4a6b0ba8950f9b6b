"""Paired datasets: items, links, splits, readers and the decoding of media. NumPy, no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusemix_core.data.dataset import PairedDataset, Rejected
    from fusemix_core.data.facts import Fact
    from fusemix_core.data.items import Items
    from fusemix_core.data.media import Audio, decode, normalise_text
    from fusemix_core.data.reading import pairs_from, read_pairs

_HOMES = {
    **dict.fromkeys(["PairedDataset", "Rejected"], "dataset"),
    "Fact": "facts",
    "Items": "items",
    **dict.fromkeys(["Audio", "decode", "normalise_text"], "media"),
    **dict.fromkeys(["pairs_from", "read_pairs"], "reading"),
}

__all__ = [
    "Audio",
    "Fact",
    "Items",
    "PairedDataset",
    "Rejected",
    "decode",
    "normalise_text",
    "pairs_from",
    "read_pairs",
]


def __getattr__(name: str) -> Any:
    """Names are imported on first use: a search needs no readers."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
