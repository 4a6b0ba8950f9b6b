"""The config of `fusemix generate`, and its plan: everything that is checked before weights are
loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fusemix_core.data.asked import modality_of
from fusemix_core.errors import ConfigError
from fusemix_core.fused import FusedModel
from fusemix_core.generation.conditions import check_makes
from fusemix_core.generation.files import origin_of, slug
from fusemix_core.generation.loading import options_of
from fusemix_core.generation.spaces import fixed_modality, space_of
from fusemix_core.registry import check_options, registry
from fusemix_core.runs.models import load_model
from fusemix_core.saved.encoders import Source
from fusemix_core.specs import GeneratorSpec

MOST = 1000
"""Items that one command makes."""


@dataclass(frozen=True)
class Item:
    """An item to generate from: its modality, "" if that is to be found out, and a text or path."""

    modality: str
    value: str

    @property
    def name(self) -> str:
        """A text, or the name of a file: never where it lies."""
        return Path(self.value).name if os.path.isfile(self.value) else self.value

    @property
    def slug(self) -> str:
        """The same as part of a file's name, without its suffix."""
        return slug(Path(self.value).stem if os.path.isfile(self.value) else self.value)


@dataclass(frozen=True)
class GenerateConfig:
    """One `fusemix generate`.

    Attributes:
        generator: By its name.
        items: What to generate from; of several, a mixture.
        model: A fused model; None if all items are of the generator's own space.
        weights: One per item, for a mixture; empty: all alike.
        avoid: Items that the result should be unlike.
        count, seed: How many, and the seed of the first; the next ones have the next numbers.
        correct: The name of a correction, or `auto`.
        strip: The number of steps from the first item to the second; 0 for a mixture.
        rerank: Make so many times `count`, and keep those that fit best by the model.
        captions: A file with a text per line, for a generator of tokens.
        options: Of the generator.
        device: Where it runs.
    """

    generator: str
    items: tuple[Item, ...]
    model: str | None = None
    weights: tuple[float, ...] = ()
    avoid: tuple[Item, ...] = ()
    count: int = 1
    seed: int = 0
    correct: str = "auto"
    strip: int = 0
    rerank: int = 1
    captions: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"


@dataclass(frozen=True)
class GeneratePlan:
    """A checked `GenerateConfig`. Checking loads no weights of the generator.

    Attributes:
        config: The config, each item with its modality.
        spec: The generator's.
        model: The fused model, or None.
    """

    config: GenerateConfig
    spec: GeneratorSpec
    model: FusedModel | None

    def as_dict(self) -> dict[str, Any]:
        """As `--dry-run --json` has it."""
        config = self.config
        return {
            **origin_of(self.spec),
            "space": self.spec.space,
            "model": config.model,
            "from": [{"modality": i.modality, "item": i.value} for i in config.items],
            "weights of items": list(config.weights),
            "not": [{"modality": i.modality, "item": i.value} for i in config.avoid],
            "correct": config.correct,
            "seeds": [config.seed, config.seed + config.count - 1],
            "strip": config.strip,
            "rerank": config.rerank,
            "options": {**options_of(self.spec), **config.options},
            "makes": max(config.strip, config.rerank) * config.count,
        }


def make_plan(config: GenerateConfig, encoders: Mapping[str, Source] | None = None) -> GeneratePlan:
    """Check a config.

    Args:
        encoders: modality → encoder of the model to take in place of the saved name.

    Raises:
        ConfigError: It can't be done: another space, an option that there is not, and so on.
    """
    spec = registry.generator(config.generator)
    spec.check_requirements()
    _check_numbers(config)
    check_options("generator", spec.name, options_of(spec), config.options)
    model = None
    if config.model is not None:
        model = load_model(config.model, config.device, encoders)
    elif config.rerank > 1 or encoders:
        raise ConfigError("--rerank and --encoder need a model.", "Name a run or a model first.")
    media = _media(spec, model)
    items, avoid = (
        tuple(_with_modality(item, media) for item in some) for some in (config.items, config.avoid)
    )
    config = replace(config, items=items, avoid=avoid)
    if model is not None and config.rerank > 1:
        check_makes(model, spec, f"--rerank asks how well each {spec.makes} fits")
    return GeneratePlan(config, spec, model)


def _check_numbers(config: GenerateConfig) -> None:
    """Raise `ConfigError` for numbers that don't go together."""
    if not config.items:
        raise ConfigError(
            "There is nothing to generate from.",
            'Example: --from audio bark.wav, or --from text "a red fish"',
        )
    if config.strip and len(config.items) != 2:
        raise ConfigError(
            f"A strip goes from one item to another; there are {len(config.items)}.",
            "Give --from twice.",
        )
    if config.strip and (config.strip < 2 or config.weights or config.rerank > 1):
        raise ConfigError("A strip has 2 steps or more, and no --weights and no --rerank.")
    if config.weights and len(config.weights) != len(config.items):
        raise ConfigError(
            f"There are {len(config.weights)} weights for {len(config.items)} items.",
            "Give one for each --from, in their order: --weights 0.7,0.3",
        )
    made = max(config.strip, config.rerank, 1) * config.count
    if config.count < 1 or config.rerank < 1 or made > MOST:
        raise ConfigError(f"{made} is not a number of items to make.", f"From 1 to {MOST} at once.")


def _media(spec: GeneratorSpec, model: FusedModel | None) -> dict[str, str]:
    """modality → medium, of the items that can be given, before any weights are loaded."""
    if model is not None:
        if spec.condition == "pooled":
            fixed_modality(spec, model)
        return {m: info.takes for m, info in model.encoders.items()}
    if not spec.space:
        raise ConfigError(
            f"'{spec.name}' is steered by the scores of a fused model.",
            f"Name one first that has the modality '{spec.makes}'.",
        )
    space = space_of(spec, registry)
    return {space.modality: space.takes}


def _with_modality(item: Item, media: Mapping[str, str]) -> Item:
    """The item with its modality, which is guessed if the user did not say it. `Conditions` refuse
    an unknown one."""
    return item if item.modality else Item(modality_of(item.value, media), item.value)
