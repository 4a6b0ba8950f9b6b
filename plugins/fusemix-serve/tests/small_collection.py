"""A collection of images and texts, with what tests ask of it beside what the server does."""

from __future__ import annotations

import csv
from functools import cached_property

from fusemix_core.config import DataConfig
from fusemix_core.search import Collection


class SmallCollection(Collection):
    """A `Collection` that is not updated, with its contents at hand."""

    @cached_property
    def keys(self):
        """In the order of the map."""
        return self.overview().keys

    @cached_property
    def places(self):
        """Key → place in that order."""
        return {key: i for i, key in enumerate(self.keys)}

    @cached_property
    def records(self):
        """In that order."""
        return self.items(self.keys)

    @cached_property
    def rows(self):
        """In that order."""
        return self.vectors(self.keys)


def write_index(folder, pairs, model):
    """The index of `write_world`'s images and texts and of two copies of its first image."""
    with open(pairs, newline="") as file:
        rows = list(csv.DictReader(file))
    written = []
    for i, row in enumerate(rows):
        written.append({k: row[k] for k in ("image", "text", "thing")} | {"year": 1900 + i})
    first = pairs.parent / rows[0]["image"]
    for name in ("copy1.png", "copy2.png"):
        data = first.read_bytes() + name.encode()  # another key, the same pixels
        (pairs.parent / name).write_bytes(data)
        written.append({"image": name, "text": "", "thing": "copy", "year": ""})
    table = pairs.parent / "collection.csv"
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, written[0])
        writer.writeheader()
        writer.writerows(written)
    Collection.create(folder, model, DataConfig(source=(str(table),)), to=("image", "text"))
    return folder
