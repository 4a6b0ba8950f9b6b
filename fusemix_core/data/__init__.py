"""Paired datasets: items, links, splits, readers and the decoding of media. NumPy, no torch."""

from fusemix_core.data.dataset import PairedDataset, Rejected
from fusemix_core.data.facts import Fact
from fusemix_core.data.items import Items
from fusemix_core.data.media import Audio, decode, normalise_text
from fusemix_core.data.reading import pairs_from, read_pairs

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
