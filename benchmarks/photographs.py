"""Pools of real photographs (clothing10) and figures (openstax) that clips are made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusemix_core.registry import registry

SPLITS = ("train", "validation", "test")
BOOKS = {
    "train": ("introduction-sociology", "world-history", "introduction-business"),
    "validation": ("introduction-anthropology",),
    "test": ("anatomy-physiology", "american-government"),
}
"""Of the figures."""


@dataclass(frozen=True)
class Pool:
    """The files of a split.

    Attributes:
        photographs: of clothing.
        classes: int64, the number of each one's class.
        figures: of textbooks.
    """

    photographs: list[Path]
    classes: np.ndarray
    figures: list[Path]

    def photograph(self, kind: int, draw: np.random.Generator) -> int:
        """The number of a photograph of a class."""
        return int(draw.choice(np.flatnonzero(self.classes == kind)))


def read_pools(
    data: Path, figures: int = 150, photographs: int = 1_000
) -> tuple[dict[str, Pool], list[str]]:
    """The pool of each split, and the names of the classes. The set's own validation photographs
    are for training and, one in four, for validation.

    Args:
        data: the folder of the sets.
        figures: of a split, at most.
        photographs: of a split and class, at most.
    """
    names = json.loads((data / "clothing10" / "classes.json").read_text())
    rows, shown = (lines(data / one / "manifest.jsonl") for one in ("clothing10", "openstax"))
    pools = {}
    for split in SPLITS:
        theirs = "test" if split == "test" else "validation"
        own = [row for row in rows if row["split"] == theirs]
        if split != "test":
            own = [row for i, row in enumerate(own) if (i % 4 == 0) == (split == "validation")]
        own = [row for name in names for row in _of(own, name)[:photographs]]
        some = [row for row in shown if row["book"] in BOOKS[split]][::10][:figures]
        pools[split] = Pool(
            [data / "clothing10" / row["image"] for row in own],
            np.array([names.index(row["label"]) for row in own]),
            [data / "openstax" / row["image"] for row in some],
        )
    return pools, names


def _of(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["label"] == name]


def load_encoder(name: str) -> Any:
    """A registered encoder, loaded on the CPU."""
    spec = registry.encoder(name)
    return registry.target_of(spec).load(spec, torch.device("cpu"), torch.float32)


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
