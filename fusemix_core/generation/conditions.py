"""From items to the conditions of a generator: by a fused model, or by the generator's own
encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.data.media import medium
from fusemix_core.errors import ConfigError, DataError, FusemixError
from fusemix_core.fused import FusedModel
from fusemix_core.generation.spaces import align_line, fixed_modality, own_encoder, space_of
from fusemix_core.interfaces import Generator, Padded, cat_latents
from fusemix_core.latents.encoding import Encoding
from fusemix_core.latents.given import as_list
from fusemix_core.registry import Registry
from fusemix_core.specs import GeneratorSpec


class Conditions:
    """The conditions of one generator.

    Args:
        generator: What is conditioned.
        model: A fused model. None: items of the generator's own space only.
        device: Where the generator's own encoder runs if there is no model.
        registry: What the encoder is found in.

    Attributes:
        modality: Of the space that conditions the generator. Of one that is guided there is none.

    Raises:
        ConfigError: The model is not aligned to the generator's space.
    """

    def __init__(
        self,
        generator: Generator,
        model: FusedModel | None,
        device: torch.device,
        registry: Registry,
    ) -> None:
        self.generator, self.spec, self.model = generator, generator.spec, model
        self._own = None
        if self.spec.condition == "guidance":
            self.modality = ""
            check_guiding(self.spec, model)
        elif model is None:
            self._own = own_encoder(self.spec, device, registry)
            self.modality = self._own.info.modality
            self._device = device
        else:
            self.modality = fixed_modality(self.spec, model)
        self._registry = registry

    def media(self) -> Mapping[str, str]:
        """modality → medium, of the items that can be given."""
        if self.model is not None:
            return {m: info.takes for m, info in self.model.encoders.items()}
        assert self._own is not None  # a guided one has a model
        return {self.modality: self._own.info.takes}

    def of_items(self, modality: str, items: Sequence[Any]) -> Tensor | Padded:
        """Conditions of items, a row each.

        Raises:
            ConfigError: There is no such modality.
            DataError: An item can't be read, or there is nothing in it, as in a silent sound.
        """
        items = as_list(modality, items)
        self._check_modality(modality)
        for item in items:
            check_filled(modality, item, self.media()[modality])
        if self.model is None:
            return self._fitting(self._encoded(items))
        if modality == self.modality:
            return self._fitting(self.model.latents(modality, items))
        return self.of_embeddings(self.model.encode(modality, items), modality)

    def of_embeddings(self, rows: Tensor, modality: str) -> Tensor:
        """Conditions of unit-norm embeddings `[n, d]` of a modality of the model."""
        rows = rows.float()
        if self.spec.condition != "guidance":
            self.generator.check(rows)
        return normalize(rows, dim=1)

    def _encoded(self, items: list[Any]) -> Tensor | Padded:
        """The latents of items by the generator's own encoder."""
        assert self._own is not None
        parts = list(self._own.encoded(items, Encoding(self._device, "float32")))
        places = torch.tensor([i for index, _ in parts for i in index])
        return cat_latents([latents for _, latents in parts])[places.argsort()]

    def _fitting(self, latents: Tensor | Padded) -> Tensor | Padded:
        """Latents of the generator's own space at the length that it takes."""
        if isinstance(latents, Padded) or self.spec.norm == "raw":
            return latents
        return normalize(latents.float(), dim=-1)

    def _check_modality(self, modality: str) -> None:
        known = self.media()
        if modality in known:
            return
        if self.model is not None:
            raise ConfigError(
                f"{self.model.name} has no modality '{modality}'.", f"It has {', '.join(known)}."
            )
        space = space_of(self.spec, self._registry)
        raise ConfigError(
            f"Without a model '{self.spec.name}' only takes {self.modality}, not {modality}.",
            f"Name a model that is aligned to its encoder '{space.name}'. "
            f"{align_line(self.spec, space, None, modality)}",
        )


def check_guiding(spec: GeneratorSpec, model: FusedModel | None) -> None:
    """Raise `ConfigError` unless a model can steer a generator: it must embed what is made."""
    if model is None:
        raise ConfigError(
            f"'{spec.name}' is steered by the scores of a fused model, and no model is named.",
            f"Name one that has the modality '{spec.makes}'.",
        )
    if spec.makes not in model.modalities:
        raise ConfigError(
            f"'{spec.name}' is steered by how well each {spec.makes} fits, and {model.name} has no "
            f"modality '{spec.makes}': it has {', '.join(model.modalities)}.",
            f"Add it: fusemix extend {model.name} -e {spec.makes}=ENCODER --data PAIRS --out RUN",
        )


def check_filled(modality: str, item: Any, takes: str) -> None:
    """Raise `DataError` for an item with nothing in it: a silent sound, an empty text."""
    kind = medium(takes)
    try:
        decoded = kind.decode(item)
    except FusemixError as error:
        raise DataError(
            f"The {modality} '{item}' can't be read: {error.message}", error.hint
        ) from error
    if isinstance(decoded, str) and not decoded.strip():
        raise DataError(f"The {modality} to generate from is empty.")
    if what := kind.blank(decoded):
        shown = item if isinstance(item, str) else f"item to generate from ({modality})"
        raise DataError(
            f"{shown} is {what}: there is nothing to generate from.", "Give another item."
        )
