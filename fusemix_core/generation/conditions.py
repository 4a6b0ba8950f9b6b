"""From items to the conditions of a generator: by a fused model, or by the generator's own
encoder."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.data.media import medium
from fusemix_core.errors import ConfigError, DataError, short
from fusemix_core.fused import FusedModel
from fusemix_core.generation.correcting import AUTO, Corrections
from fusemix_core.generation.spaces import align_line, fixed_modality, own_encoder, space_of
from fusemix_core.interfaces import Generator, Padded, cat_latents
from fusemix_core.latents.encoding import Encoding
from fusemix_core.registry import Registry
from fusemix_core.specs import GeneratorSpec

Note = Callable[[str], None]


class Conditions(ABC):
    """Turns items into the conditions of one generator.

    Attributes:
        spec: the generator's.
        model: the fused model by which that is done; None if there is none.
        media: modality → medium, of the items that can be given.
    """

    spec: GeneratorSpec
    model: FusedModel | None
    media: Mapping[str, str]

    def of_items(self, modality: str, items: Sequence[Any], seeds: Sequence[int]) -> Any:
        """Conditions of items, a row per seed: of one item as many, else one per item.

        Raises:
            ConfigError: there is no such modality.
            DataError: an item can't be read, or there is nothing in it, as in a silent sound.
        """
        if modality not in self.media:
            raise self.refused(modality)
        for item in items:
            check_filled(modality, item, self.media[modality])
        return self.encoded(modality, list(items), seeds)

    @abstractmethod
    def encoded(self, modality: str, items: list[Any], seeds: Sequence[int]) -> Any:
        """Conditions of items of a modality that there is."""

    def of_embeddings(self, rows: Tensor, modality: str, seeds: Sequence[int]) -> Tensor:
        """Conditions of unit-norm embeddings `[n, d]` of a modality of the model.

        Raises:
            ConfigError: the generator takes no embeddings, or those of another width.
        """
        raise ConfigError(
            f"'{self.spec.name}' can't be conditioned by embeddings.", "Give it items."
        )

    def refused(self, modality: str) -> ConfigError:
        """The error for a modality that there is not."""
        known = ", ".join(self.media)
        name = self.model.name if self.model is not None else self.spec.name
        return ConfigError(f"{name} has no modality '{modality}'.", f"It has {known}.")


class OwnLatents(Conditions):
    """Items of the generator's own space, by its own encoder; no model."""

    def __init__(self, spec: GeneratorSpec, device: torch.device, registry: Registry) -> None:
        self.spec, self.model, self._registry, self._device = spec, None, registry, device
        self._encoder = own_encoder(spec, device, registry)
        self.media = {self._encoder.info.modality: self._encoder.info.takes}

    def encoded(self, modality: str, items: list[Any], seeds: Sequence[int]) -> Tensor | Padded:
        """The latents of items, at the length that the generator takes."""
        parts = list(self._encoder.encoded(items, Encoding(self._device, "float32")))
        places = torch.tensor([i for index, _ in parts for i in index])
        found = cat_latents([latents for _, latents in parts])[places.argsort()]
        return repeated(at_length(found, self.spec), seeds)

    def refused(self, modality: str) -> ConfigError:
        space, own = space_of(self.spec, self._registry), ", ".join(self.media)
        return ConfigError(
            f"Without a model '{self.spec.name}' only takes {own}, not {modality}.",
            f"Name a model that is aligned to its encoder '{space.name}'. "
            f"{align_line(self.spec, space, None, modality)}",
        )


class FusedLatents(Conditions):
    """Items of any modality of a model that has the generator's space as a fixed one."""

    def __init__(self, generator: Generator, model: FusedModel, how: str, note: Note) -> None:
        self.spec, self.model, self._generator = generator.spec, model, generator
        self.media = {m: info.takes for m, info in model.encoders.items()}
        self.target = fixed_modality(generator.spec, model)
        self.corrections = Corrections(model, self.target, generator, how, note)

    def encoded(self, modality: str, items: list[Any], seeds: Sequence[int]) -> Tensor | Padded:
        """The latents of items of the fixed modality; embeddings of others, corrected."""
        assert self.model is not None
        if modality == self.target:
            return repeated(at_length(self.model.latents(modality, items), self.spec), seeds)
        rows = self.model.encode(modality, items)
        return self.of_embeddings(repeated(rows, seeds), modality, seeds)

    def of_embeddings(self, rows: Tensor, modality: str, seeds: Sequence[int]) -> Tensor:
        if modality not in self.media:
            raise self.refused(modality)
        self._generator.check(rows)
        return self.corrections(rows, modality, seeds)


class Guided(Conditions):
    """Embeddings of a model by whose score the generator is steered, whatever the model's space."""

    def __init__(self, spec: GeneratorSpec, model: FusedModel | None) -> None:
        if model is None:
            raise ConfigError(
                f"'{spec.name}' is steered by the scores of a fused model, and none is named.",
                f"Name one that has the modality '{spec.makes}'.",
            )
        check_makes(model, spec, f"'{spec.name}' is steered by how well each {spec.makes} fits")
        self.spec, self.model = spec, model
        self.media = {m: info.takes for m, info in model.encoders.items()}

    def encoded(self, modality: str, items: list[Any], seeds: Sequence[int]) -> Tensor:
        """The embeddings of items."""
        assert self.model is not None
        return repeated(self.model.encode(modality, items), seeds)

    def of_embeddings(self, rows: Tensor, modality: str, seeds: Sequence[int]) -> Tensor:
        return normalize(rows.float(), dim=1)


class Tokens(OwnLatents):
    """Sequences of the generator's own encoder: of items of its modality, and for an item of
    another modality those of the nearest caption, by a fused model.

    Args:
        captions: items of the own modality to choose from.
    """

    def __init__(
        self,
        spec: GeneratorSpec,
        model: FusedModel | None,
        captions: Sequence[str],
        note: Note,
        device: torch.device,
        registry: Registry,
    ) -> None:
        super().__init__(spec, device, registry)
        self.model, self.captions, self._note = model, list(captions), note
        (self.own,) = self.media
        if model is not None and self.own in model.modalities:
            others = {m: info.takes for m, info in model.encoders.items() if m != self.own}
            self.media = {**self.media, **others}

    def encoded(self, modality: str, items: list[Any], seeds: Sequence[int]) -> Tensor | Padded:
        """The tokens of items, or of the captions nearest to them."""
        if modality != self.own:
            items = self._nearest(modality, items)
        return super().encoded(self.own, items, seeds)

    def _nearest(self, modality: str, items: list[Any]) -> list[str]:
        assert self.model is not None
        if not self.captions:
            raise ConfigError(
                f"'{self.spec.name}' is conditioned by sequences of tokens, which an embedding of "
                f"{modality} is not: the nearest caption takes its place, and there are none.",
                f"Give texts to choose from: --captions FILE, a {self.own} per line.",
            )
        gallery = self.model.encode(self.own, self.captions)
        scores = self.model.similarity(
            self.model.encode(modality, items), gallery, modality, self.own
        )
        found = [self.captions[i] for i in scores.argmax(1).tolist()]
        for item, caption in zip(items, found, strict=True):
            self._note(f"Nearest caption to {_shown(item, modality)}: {short(caption)}")
        return found


@dataclass(frozen=True)
class How:
    """How items become conditions.

    Attributes:
        correct: the name of a correction, or `auto`.
        captions: texts to choose from, for a generator of tokens.
        note: is called with each note for the user.
    """

    correct: str = AUTO
    captions: Sequence[str] = ()
    note: Note = lambda text: None


def conditions_of(
    generator: Generator,
    model: FusedModel | None,
    how: How,
    device: torch.device,
    registry: Registry,
) -> Conditions:
    """The `Conditions` that suit a generator and a model.

    Args:
        model: a fused model. None: items of the generator's own space only.
        device: where the generator's own encoder runs.
        registry: what that encoder is found in.

    Raises:
        ConfigError: the model can't condition this generator.
    """
    spec = generator.spec
    if spec.condition == "guidance":
        return Guided(spec, model)
    if spec.condition == "tokens":
        return Tokens(spec, model, how.captions, how.note, device, registry)
    if model is None:
        return OwnLatents(spec, device, registry)
    return FusedLatents(generator, model, how.correct, how.note)


def check_makes(model: FusedModel, spec: GeneratorSpec, why: str) -> None:
    """Raise `ConfigError` unless a model embeds what a generator makes."""
    if spec.makes not in model.modalities:
        raise ConfigError(
            f"{why}, and {model.name} has no modality '{spec.makes}': it has "
            f"{', '.join(model.modalities)}.",
            f"Add it: fusemix extend {model.name} -e {spec.makes}=ENCODER --data PAIRS --out RUN",
        )


def check_filled(modality: str, item: Any, takes: str) -> None:
    """Raise `DataError` for an item that can't be read, or with nothing in it: a silent sound, an
    empty text."""
    kind = medium(takes)
    decoded = kind.decode(item)
    if isinstance(decoded, str) and not decoded.strip():
        raise DataError(f"The {modality} to generate from is empty.")
    if kind.sampled and (what := kind.blank(decoded)):
        raise DataError(
            f"{_shown(item, modality)} is {what}: there is nothing to generate from.",
            "Give another item.",
        )


def repeated(rows: Any, seeds: Sequence[int]) -> Any:
    """Rows, one per seed: one row for all of them, else as they are."""
    return rows[torch.zeros(len(seeds), dtype=torch.int64)] if len(rows) == 1 else rows


def at_length(latents: Tensor | Padded, spec: GeneratorSpec) -> Tensor | Padded:
    """Latents of the generator's own space at the length that it takes."""
    if isinstance(latents, Padded) or latents.ndim > 2 or spec.norm == "raw":
        return latents
    return normalize(latents.float(), dim=1)


def _shown(item: Any, modality: str) -> str:
    """An item in a message."""
    return short(item) if isinstance(item, str | os.PathLike) else f"The {modality}"
