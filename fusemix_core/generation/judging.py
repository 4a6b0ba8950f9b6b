"""Who judges generated items, and the real ones that they are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.config import DataConfig
from fusemix_core.data.items import Items
from fusemix_core.data.reading import read_pairs
from fusemix_core.data.sources import expand, open_source
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.evaluation.generated import centroids
from fusemix_core.fused import FusedModel
from fusemix_core.generation.spaces import encoder_alone
from fusemix_core.hub import weights_of
from fusemix_core.latents.encoding import Encoding
from fusemix_core.measured import Measured
from fusemix_core.padded import as_rows, cat_latents
from fusemix_core.project import how_to_install
from fusemix_core.registry import Registry
from fusemix_core.specs import EncoderSpec, GeneratorSpec

_SPLIT = "split"
_MOST_REAL = 10_000
_AT_ONCE = 512
"""Real images that are in memory together."""
_SIDE = 64
"""Pixels a side at which images are compared with training images."""


class Judge:
    """An encoder that judges the work of others.

    Args:
        spec: of the encoder; its first view is taken.
        device: where it runs.
        registry: what it is found in.
        pixels: a side, to which it brings all images first; 0 leaves them as they are.

    Example:
        rows = Judge(registry.encoder("efficientnet-lite0"), device, registry)(images)
    """

    def __init__(
        self, spec: EncoderSpec, device: torch.device, registry: Registry, pixels: int = 0
    ) -> None:
        self.name, self._device, self._pixels = spec.name, device, pixels
        self._encoder = encoder_alone(spec, spec.views[0], spec.dim or 0, device, registry)

    def __call__(self, items: Sequence[Any]) -> Tensor:
        """Latents `[n, d]` of items."""
        shown = [self._sized(item) for item in items] if self._pixels else list(items)
        parts = list(self._encoder.encoded(shown, Encoding(self._device, "float32")))
        places = torch.tensor([i for index, _ in parts for i in index])
        return as_rows(cat_latents([latents for _, latents in parts])[places.argsort()]).float()

    def _sized(self, image: Any) -> Any:
        side = (self._pixels, self._pixels)
        return image.convert("RGB").resize(side, Image.Resampling.BOX)


def judge_of(name: str, spec: GeneratorSpec, model: FusedModel, registry: Registry) -> EncoderSpec:
    """The encoder that judges what a generator makes: the one that is named, else the largest
    installed one whose weights are on this disk and that neither the generator nor the model has.

    Raises:
        ConfigError: there is none, or the one that is named belongs to the generator or the model.
    """
    own = {info.name for info in model.encoders.values()} | {spec.space}
    if name:
        found = registry.encoder(name, spec.makes)
        if found.name in own:
            raise ConfigError(
                f"'{found.name}' can't judge: the generator or the model has it, too.",
                "Name another --judge.",
            )
        return found
    known = [
        one
        for _, one in registry.all_encoders()
        if isinstance(one, EncoderSpec)
        and one.modality == spec.makes
        and one.name not in own
        and weights_of(one)[0] == "here"
    ]
    if not known:
        raise ConfigError(
            f"No encoder of {spec.makes} is installed that could judge what '{spec.name}' makes.",
            f"Name one: --judge ENCODER, or {how_to_install('fusemix-starter')}",
        )
    return max(known, key=lambda one: (one.parameters or 0, one.name))


@dataclass(frozen=True)
class Real:
    """Real items with the concept that each shows.

    Attributes:
        names: C concepts, as texts.
        concepts: int64 `[n]`, the concept of each item.
        rows: the judge's latents, `[n, d]`.
        middle: their mean, `[d]`.
        centroids: `[C, d]`, of unit norm, of latents without that mean.
        pixels: `[n, p]` in 0 to 1, all of one size.
        held: bool `[n]`: items that the generator was not trained on. None: nobody says so.
    """

    names: list[str]
    concepts: Tensor
    rows: Tensor
    middle: Tensor
    centroids: Tensor
    pixels: Tensor
    held: Tensor | None

    @classmethod
    def of_source(cls, source: str, takes: str, judge: Judge) -> Real:
        """The items of a source with the columns `image` and `text`, one row each. If it has a
        column `split`, the generator was trained on the rows of `train`.

        Raises:
            DataError: the source can't be read.
        """
        config = DataConfig(source=(source,), validation_fraction=0.0, test_fraction=0.0)
        if any(_SPLIT in open_source(path, config)[1] for path in expand(source)):
            config = replace(config, split_column=_SPLIT)
        found = read_pairs(config, {"image": takes, "text": "text"})
        items, texts = found.items["image"], found.items["text"]
        keep = np.unique(found.links[:, 0], return_index=True)[1][:_MOST_REAL]
        names = [texts.describe(i) for i in found.links[keep, 1].tolist()]
        trained = np.isin(keep, found.splits["train"])
        held = torch.from_numpy(~trained) if 0 < trained.sum() < len(keep) else None
        return cls._of(items, found.links[keep, 0].tolist(), names, judge, held)

    @classmethod
    def of_split(cls, data: Measured, makes: str, target: str, judge: Judge) -> Real:
        """The items of a measured split that are linked to a concept.

        Raises:
            ConfigError: the split has no such items.
        """
        if makes not in data.modalities:
            raise ConfigError(
                f"There is no real {makes} to compare with: the data have none.",
                "Give some: --images FILE, a table with the columns image and text.",
            )
        links = data.links[:, [data.modalities.index(makes), data.modalities.index(target)]]
        links = links[(links >= 0).all(dim=1)][:_MOST_REAL]
        names = [data.describe(target, i) for i in links[:, 1].tolist()]
        numbers = data.ids[makes][links[:, 0]].tolist()
        return cls._of(data.items[makes], numbers, names, judge, None)

    @classmethod
    def _of(
        cls,
        items: Items,
        numbers: Sequence[int],
        texts: Sequence[str],
        judge: Judge,
        held: Tensor | None,
    ) -> Real:
        if not len(numbers):
            raise DataError("There is no real image to compare with.")
        shown = {plain(text): text for text in reversed(texts)}
        places = {name: i for i, name in enumerate(sorted(shown))}
        concepts = torch.tensor([places[plain(text)] for text in texts])
        rows, pixels = [], []
        for start in range(0, len(numbers), _AT_ONCE):
            images = [items.load(i) for i in numbers[start : start + _AT_ONCE]]
            rows.append(judge(images))
            pixels.append(pixels_of(images))
        seen = torch.cat(rows)
        names = [shown[name] for name in places]
        middle = seen.mean(dim=0)
        known = centroids(seen - middle, concepts, len(names))
        return cls(names, concepts, seen, middle, known, torch.cat(pixels), held)

    def looked_at(self, rows: Tensor) -> Tensor:
        """Latents of the judge without what all real images have in common, at unit norm."""
        return normalize(rows - self.middle, dim=1)

    def concept_of(self, text: str) -> int:
        """The number of the concept of this name; -1 if there is none."""
        return self._numbers.get(plain(text), -1)

    @property
    def _numbers(self) -> dict[str, int]:
        return {plain(name): i for i, name in enumerate(self.names)}


def plain(text: str) -> str:
    """A concept's name as it is compared."""
    return " ".join(text.casefold().split())


def pixels_of(images: Iterable[Any]) -> Tensor:
    """float32 `[n, p]` in 0 to 1 of images, all at one size."""
    small = [np.asarray(image.convert("RGB").resize((_SIDE, _SIDE))) for image in images]
    return torch.from_numpy(np.stack(small)).flatten(1).float() / 255
