"""A collection in memory, with what the server asks of `fusemix_core.search.Collection`."""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Record:
    key: str
    modality: str
    item: str
    columns: dict[str, Any] = field(default_factory=dict)
    score: float | None = None
    percentile: float | None = None


class SmallCollection:
    """The images and texts of `write_world`, and copies of its first image."""

    def __init__(self, model, pairs):
        self.model, self.folder = model, pairs.parent
        self.modalities = ("image", "text")
        self.query_modalities = model.modalities
        self.columns = {"text": "text", "thing": "text", "year": "number"}
        self.records, self.contents = [], {}
        with open(pairs, newline="") as file:
            rows = list(csv.DictReader(file))
        for i, row in enumerate(rows):
            columns = {"text": row["text"], "thing": row["thing"], "year": 1900 + i}
            self._add("image", self.folder / row["image"], row["image"], columns)
            self._add("text", row["text"], row["text"], columns)
        first = self.folder / rows[0]["image"]
        for name in ("copy1.png", "copy2.png"):
            data = first.read_bytes() + name.encode()  # another key, the same pixels
            (self.folder / name).write_bytes(data)
            self._add("image", self.folder / name, name, {"text": None, "thing": "copy"})
        self.rows = torch.zeros(len(self.records), model.dim)
        for modality in self.modalities:
            index = [i for i, r in enumerate(self.records) if r.modality == modality]
            own = [self.contents[self.records[i].key] for i in index]
            self.rows[index] = model.encode(modality, own)
        self.version = "1"
        self.places = {r.key: i for i, r in enumerate(self.records)}

    def _add(self, modality, content, item, columns):
        data = content.read_bytes() if modality == "image" else content.encode()
        key = hashlib.sha256(data).hexdigest()[:32]
        if key not in self.contents:
            full = {name: columns.get(name) for name in self.columns}
            shown = str(self.folder / item) if modality == "image" else item
            self.records.append(Record(key, modality, shown, full))
            self.contents[key] = content

    def __len__(self):
        return len(self.records)

    def keys(self):
        return [r.key for r in self.records]

    def search(self, vector, modality, count=10, offset=0, where=None, target=None, exclude=()):
        target = target or next(m for m in self.modalities if m != modality)
        scores = self.model.scorer.score(vector[None], self.rows, modality, target)[0].tolist()
        allowed = self.matching(where) if where else np.ones(len(self), bool)
        fitting = [
            i
            for i, r in enumerate(self.records)
            if allowed[i] and r.key not in exclude and target == r.modality
        ]
        order = sorted(fitting, key=lambda i: -scores[i])
        ranks = {i: 100 * (1 - rank / len(order)) for rank, i in enumerate(order)}
        return [
            replace(self.records[i], score=scores[i], percentile=ranks[i])
            for i in order[offset : offset + count]
        ]

    def items(self, keys):
        return [self.records[self.places[key]] for key in keys]

    def vectors(self, keys):
        return self.rows[[self.places[key] for key in keys]]

    def media(self, key):
        return self.contents[key]

    def matching(self, where):
        from fusemix_core.errors import ConfigError

        found = re.fullmatch(r"(\w+) = '(\w+)'", where)
        if found is None or found[1] not in self.columns:
            raise ConfigError(f"The condition can't be read: {where}")
        return np.array([value == found[2] for value in self.values(found[1])])

    def values(self, column):
        if column == "modality":
            return [r.modality for r in self.records]
        return [r.columns[column] for r in self.records]

    def facets(self, column, where=None):
        allowed = self.matching(where) if where else np.ones(len(self), bool)
        values = [v for v, fits in zip(self.values(column), allowed, strict=True) if fits]
        counted = {value: values.count(value) for value in values}
        return sorted(counted.items(), key=lambda one: -one[1])

    def map(self):
        return self.keys(), self.rows[:, :2].numpy()
