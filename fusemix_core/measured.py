"""The input of an evaluator: the embeddings of a split, and what belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.data.facts import Fact
from fusemix_core.data.items import Items
from fusemix_core.errors import ConfigError

Score = Callable[[Tensor, Tensor, str, str], Tensor]
"""`Scorer.score`: unit-norm queries `[n, d]`, gallery `[m, d]`, their modalities → `[n, m]`."""

PARTS = {
    "bank": "training embeddings, which only a run has",
    "classes": "classes (fusemix eval --classes FILE)",
    "facts": "facts of the rows (--fact NAME=COLUMN)",
}
"""What an evaluator may declare in `uses`, as an error names it."""


@dataclass(frozen=True)
class Classes:
    """Classes of the items of one modality, each embedded as a text.

    Attributes:
        names: C different names.
        labels: int64 `[n]`, the class of each item of `query`, -1 for an item without one; or
            bool `[n, C]`, if an item may have any number of classes.
        embeddings: unit-norm `[C, d]`, of modality `target`.
        query, target: the modality that is classified, and that of the class texts.
        contrast: of classes that an item may have any number of, the embeddings `[C, d]` of texts
            that say so and of texts that deny it.
        groups: int64 `[n]`, items that depend on each other, such as those of a patient.
    """

    names: Sequence[str]
    labels: Tensor
    embeddings: Tensor
    query: str
    target: str
    contrast: tuple[Tensor, Tensor] | None = None
    groups: Tensor | None = None


@dataclass(frozen=True)
class Prefix:
    """The leading dimensions of a model's space.

    Attributes:
        basis: orthonormal columns `[d, k]`.
        score: the model's scorer there.
    """

    basis: Tensor
    score: Score

    def of(self, rows: Tensor) -> Tensor:
        """Unit-norm `[n, k]` of unit-norm `[n, d]`."""
        return normalize(rows @ self.basis.to(rows.device), dim=1)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A split of a dataset, embedded by a fused model.

    Attributes:
        embeddings: modality → unit-norm float32 CPU `[n, d]` of its unique items.
        links: int64 `[m, K]`, rows of items that belong together, as indices into `embeddings`, one
            column per modality in their order, -1 where a modality is missing.
        score: the model's scorer as a function: unit-norm queries `[n, d]`, gallery `[m, d]`, their
            modalities → `[n, m]`, larger is closer.
        scorer: its registered name.
        split: `train`, `validation`, `test`, or `all`.
        seed: for whatever is drawn.
        added: the modalities that a run added to a finished model; empty otherwise. Only directions
            from or to these are new.
        facts: name → `Fact` of the m rows of `links`.
        bank: modality → unit-norm `[n, d]` of training items, None outside a run.
        classes: classes of the items, None without.
        items: modality → the dataset's items; `ids`: modality → int64 `[n]`, their numbers there.
        encoder: `encode`, if there is a model to do so.
        model: the fused model itself, if there is one.
        device: where to compare many embeddings.
        prefix: the leading dimensions of the model's space, of a number of them.
        baselines: name → the same split as another model embeds it, to compare with. It has the
            same items and rows; of a model that lacks a modality, without its column of `links`.
        about: of a baseline, what it is.

    Example:
        `data.score(data.embeddings["image"], data.embeddings["text"], "image", "text")`
    """

    embeddings: Mapping[str, Tensor]
    links: Tensor
    score: Score
    scorer: str = "cosine"
    split: str = "test"
    seed: int = 0
    added: tuple[str, ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=dict)
    bank: Mapping[str, Tensor] | None = None
    classes: Classes | None = None
    items: Mapping[str, Items] = field(default_factory=dict)
    ids: Mapping[str, Tensor] = field(default_factory=dict)
    encoder: Callable[[str, Sequence[Any]], Tensor] | None = None
    model: Any = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    prefix: Callable[[int], Prefix] | None = None
    baselines: Mapping[str, Measured] = field(default_factory=dict)
    about: str = ""

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities, in the order of the columns of `links`."""
        return tuple(self.embeddings)

    def describe(self, modality: str, i: int) -> str:
        """Item i of a modality as a text to show: the text itself, or its path."""
        return self.items[modality].describe(int(self.ids[modality][i]))

    def load(self, modality: str, i: int, sample_rate: int | None = None) -> Any:
        """Item i of a modality, decoded: a str, an RGB image, an `Audio`, or a path.

        Raises:
            DataError: it can't be read.
        """
        return self.items[modality].load(int(self.ids[modality][i]), sample_rate)

    def encode(self, modality: str, items: Sequence[Any]) -> Tensor:
        """Unit-norm embeddings `[len(items), d]` of other items, such as prompts.

        Raises:
            ConfigError: there is no model to encode them.
        """
        if self.encoder is None:
            raise ConfigError("There is no model here that could encode further items.")
        return self.encoder(modality, items)

    def class_of(self, fact: str, modality: str) -> Tensor:
        """The class of each item of a modality by a class fact of its rows.

        Returns:
            int64 `[n]`, indices into `facts[fact].names`, -1 for an item without a class or with
            rows of different classes.

        Raises:
            ConfigError: the data have no such fact, or it contains no classes.
        """
        found = self.facts.get(fact)
        if found is None or found.kind not in ("class", "text"):
            known = [n for n, f in self.facts.items() if f.kind == "class"]
            raise ConfigError(
                f"The data have no classes named '{fact}'.",
                f"Facts with classes: {', '.join(known) or 'none'} (--fact NAME=COLUMN).",
            )
        items = self.links[:, self.modalities.index(modality)]
        value = torch.from_numpy(found.values)
        there = (items >= 0) & (value >= 0)
        count = len(self.embeddings[modality])
        low = torch.full((count,), len(found.names)).scatter_reduce(
            0, items[there], value[there], "amin"
        )
        high = torch.full((count,), -1).scatter_reduce(0, items[there], value[there], "amax")
        return torch.where(low == high, high, -1)
