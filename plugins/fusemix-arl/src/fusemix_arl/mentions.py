"""`mentions:FILE`: texts as the entities that they mention, embedded by TransE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Encoder, Padded
from fusemix_core.specs import EncoderSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

EXAMPLE = "Example: -e knowledge=mentions:triples.csv --column knowledge=description"


def resolve(name: str, modality: str | None = None, path: Path | None = None) -> EncoderSpec:
    """The spec of `mentions:FILE`. Raises `ConfigError` if there is no such file."""
    file = (path or Path(name)).expanduser()
    if not file.is_file():
        raise ConfigError(f"mentions:{name}: there is no file {file}.", EXAMPLE)
    return EncoderSpec(
        name=f"mentions:{name}",
        modality=modality or "knowledge",
        target="fusemix_arl.mentions:MentionsEncoder",
        summary="the entities of a file of triples that a text mentions",
        takes="text",
        views=("tokens", "pooled"),
        weights=str(file.resolve()),
        local=True,
        options={"width": 64, "epochs": 100, "margin": 5.0},
    )


class MentionsEncoder(Encoder):
    """A token for each entity that a text mentions: its vector, then where the mention begins and
    ends, from 0 to 1 of the text's characters. A text without any has one token of zeros.

    Args:
        spec: `weights` is the file of triples, `options` are those of TransE.

    Example:
        registry.encoder("mentions:triples.csv")
    """

    def __init__(self, spec: EncoderSpec) -> None:
        from fusemix_arl.graph import fitted
        from fusemix_arl.knowledge import Mentions, read_triples

        triples, given = read_triples(spec.weights), spec.options
        self.spec = spec
        self.find = Mentions(triples.entities)
        how = {"epochs": given["epochs"], "margin": given["margin"]}
        self.table = fitted(triples, given["width"], **how).entity.detach()

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        return cls(spec)

    def collate(self, items: Sequence[str]) -> list[list[tuple[int, float, float]]]:
        """(entity, begin, end) of each mention in each text."""
        for item in items:
            if not isinstance(item, str):
                raise TypeError(f"{self.spec.name} takes texts, not {type(item).__name__}")
        return [
            [(one.entity, one.start / len(text), one.end / len(text)) for one in self.find(text)]
            for text in items
        ]

    def encode(self, batch: Any, view: str = "tokens") -> Tensor | Padded:
        import torch

        rows = [self._tokens(one) for one in batch]
        if view == "tokens":
            return Padded.of(rows)
        if view == "pooled":
            return torch.stack([row[:, :-2].mean(dim=0) for row in rows])
        raise ConfigError(f"{self.spec.name} has no view '{view}'.", "It has: tokens, pooled.")

    def _tokens(self, mentions: list[tuple[int, float, float]]) -> Tensor:
        import torch

        if not mentions:
            return self.table.new_zeros(1, self.table.shape[1] + 2)
        entities = torch.tensor([entity for entity, _, _ in mentions])
        return torch.cat([self.table[entities], self.table.new_tensor(mentions)[:, 1:]], dim=1)
