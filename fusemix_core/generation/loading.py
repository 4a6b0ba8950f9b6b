"""`load_generator`: a generator by its name, ready to draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.devices import resolve_device
from fusemix_core.errors import ConfigError, ContractError, PluginError
from fusemix_core.fused import FusedModel
from fusemix_core.generation.conditions import Conditions, How, check_makes, conditions_of
from fusemix_core.generation.guidance import score_of
from fusemix_core.generation.mixing import mixed
from fusemix_core.generator import Generator
from fusemix_core.hub import without_waiting
from fusemix_core.padded import Padded
from fusemix_core.registry import Registry, check_options, registry
from fusemix_core.specs import GeneratorSpec

AT_ONCE = 8
"""Items that are made together."""

Asked = Mapping[str, Any] | Sequence[tuple[str, Any]]
"""Items by modality, or pairs of these."""


def load_generator(
    name: str | GeneratorSpec | Generator,
    *,
    device: str | torch.device = "auto",
    dtype: str = "float32",
    registry: Registry = registry,
) -> LoadedGenerator:
    """A generator by its name, its weights loaded.

    Args:
        name: `NAME`, `FAMILY:NAME`, `NAME@PATH` or `./file.py:Class`; or a spec, or a `Generator`.
        device: Where it runs; `auto` is the accelerator if there is one.
        dtype: Its precision: `float32`, `float16` or `bfloat16`.

    Raises:
        UnknownNameError: No installed plugin brings it.
        MissingDependencyError: A package that it needs is not installed.
        ArtefactError: Its weights are missing or damaged, or can't be fetched.

    Example:
        draw = load_generator("emoji")
        images = draw(model, {"audio": "bark.wav"}, count=4, seed=0)
        images[0].save("bark.png")
    """
    place = resolve_device(device)
    if isinstance(name, Generator):
        return LoadedGenerator(name, place, registry)
    spec = registry.generator(name) if isinstance(name, str) else name
    spec.check_requirements()
    target = registry.target_of(spec)
    if not (isinstance(target, type) and issubclass(target, Generator)):
        raise PluginError(f"The generator '{spec.name}' is not a subclass of Generator.")
    with without_waiting(spec, registry):
        generator = target.load(spec, place, getattr(torch, dtype))
    generator.spec = spec
    return LoadedGenerator(generator, place, registry)


class LoadedGenerator:
    """A generator ready to draw; `load_generator` makes it.

    Attributes:
        generator: The generator itself.
        spec: Its spec.

    Example:
        draw = load_generator("emoji")
        draw(model, {"audio": "bark.wav", "text": "a red car"}, weights=[0.7, 0.3])
        draw(None, {"text": "a red fish"})  # its own space needs no model
    """

    def __init__(
        self, generator: Generator, device: torch.device, registry: Registry = registry
    ) -> None:
        self.generator, self.spec = generator, generator.spec
        self.device, self.registry = device, registry

    def conditions(self, model: FusedModel | None, how: How | None = None) -> Conditions:
        """Turns items into conditions, by a model or by the generator's own encoder."""
        return conditions_of(self.generator, model, how or How(), self.device, self.registry)

    def __call__(
        self,
        model: FusedModel | None,
        items: Asked,
        *,
        count: int = 1,
        seed: int = 0,
        weights: Sequence[float] | None = None,
        avoid: Asked = (),
        correct: str = "auto",
        captions: Sequence[str] = (),
        note: Callable[[str], None] = lambda text: None,
        **options: Any,
    ) -> list[Any]:
        """Draw from items, or from a mixture of several.

        Args:
            model: A fused model with a fixed modality whose encoder is the generator's. None: all
                items are of the generator's own space.
            items: modality → item; or pairs of these, if there are several of one modality.
            count: How many to draw of it.
            seed: Of the first; the next ones have the next numbers.
            weights: One per item, for a mixture.
            avoid: modality → item that the result should be unlike.
            correct: How embeddings of other modalities are brought to the generator's space:
                `none`, `norm`, `shift`, `bank`, `prior`, or `auto`, which the model's validation
                pairs chose.
            captions: Texts, for a generator that is conditioned by tokens. The nearest one replaces
                an item of another modality.
            note: Is called with each note for the user.
            **options: Of the generator, such as `steps`, `guidance` and `size`.

        Returns:
            Items as `spec.makes` has them, such as PIL images.

        Raises:
            ConfigError: The model is not aligned to the generator's space, or an option is wrong.
            DataError: An item can't be read, or there is nothing in it.
        """
        found = self.conditions(model, How(correct, captions, note))
        seeds = range(seed, seed + count)
        condition = self.mixture(found, items, seeds, weights)
        negative = self.mixture(found, avoid, seeds) if avoid else None
        return self.draw(condition, seeds, negative, model, **options)

    def mixture(
        self,
        conditions: Conditions,
        items: Asked,
        seeds: Sequence[int],
        weights: Sequence[float] | None = None,
    ) -> Tensor | Padded:
        """The condition of items together, a row per seed.

        Raises:
            ConfigError: There are no items, or there are several and the generator takes tokens.
        """
        pairs = list(items.items()) if isinstance(items, Mapping) else list(items)
        if not pairs:
            raise ConfigError("There is nothing to generate from.", "Give an item of a modality.")
        if len(pairs) > 1 and self.spec.condition == "tokens":
            raise ConfigError(
                f"'{self.spec.name}' is conditioned by tokens, which can't be mixed.",
                "Give one item.",
            )
        rows = [conditions.of_items(modality, [item], seeds) for modality, item in pairs]
        return rows[0] if len(rows) == 1 else mixed(rows, weights)

    def from_embeddings(
        self,
        rows: Tensor | ArrayLike,
        *,
        modality: str = "",
        model: FusedModel | None = None,
        seeds: Sequence[int] | None = None,
        negative: Tensor | None = None,
        correct: str = "auto",
        note: Callable[[str], None] = lambda text: None,
        **options: Any,
    ) -> list[Any]:
        """Draw one item per embedding.

        Args:
            rows: `[n, d]`: unit-norm embeddings of `modality` by `model`; without a model,
                conditions as they are.
            modality, model: Whose embeddings they are.
            seeds: One per row; by default 0, 1, 2, ….
            negative: A condition to keep away from, `[n, d]` or `[1, d]`.
            correct, note: As in a call.
            **options: Of the generator.

        Example:
            rows = model.encode("audio", files)
            images = draw.from_embeddings(rows, model=model, modality="audio")
        """
        rows = rows if isinstance(rows, Tensor) else torch.tensor(rows, dtype=torch.float32)
        seeds = range(len(rows)) if seeds is None else seeds
        if model is not None:
            found = self.conditions(model, How(correct, note=note))
            rows = found.of_embeddings(rows, modality, seeds)
        if negative is not None:
            negative = negative.expand(len(rows), -1)
        return self.draw(rows, seeds, negative, model, **options)

    def draw(
        self,
        condition: Tensor | Padded,
        seeds: Sequence[int],
        negative: Tensor | Padded | None = None,
        model: FusedModel | None = None,
        **options: Any,
    ) -> list[Any]:
        """One item per condition, checked.

        Args:
            condition, seeds, negative: As in `Generator.generate`.
            model: Its score steers a generator of the condition `guidance`.
            **options: Of the generator.
        """
        self.generator.check(condition)
        check_options("generator", self.spec.name, options_of(self.spec), options)
        if len(seeds) != len(condition):
            raise ConfigError(f"There are {len(seeds)} seeds for {len(condition)} conditions.")
        drawn: list[Any] = []
        for start in range(0, len(condition), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            avoid = None if negative is None else negative[some]
            steered = self._score(condition[some], model)
            made = self.generator.generate(
                condition[some], seeds=list(seeds[some]), negative=avoid, **steered, **options
            )
            if len(made) != len(condition[some]):
                name = f"The generator '{self.spec.name}'"
                raise ContractError(name, f"{len(condition[some])} items", f"{len(made)}")
            drawn += made
        return drawn

    def _score(self, condition: Tensor | Padded, model: FusedModel | None) -> dict[str, Any]:
        """The score that steers a generator of the condition `guidance`."""
        if self.spec.condition != "guidance":
            return {}
        assert model is not None and isinstance(condition, Tensor)
        return {"score": score_of(model, condition)}


def options_of(spec: GeneratorSpec) -> dict[str, Any]:
    """The options that users may set, with the defaults; `size` too, if the spec has one."""
    return {**spec.options, **({} if spec.size is None else {"size": spec.size})}


def ranked(
    drawn: Sequence[Any], wanted: Tensor, model: FusedModel, spec: GeneratorSpec
) -> list[tuple[int, float]]:
    """Rank items by how well they fit, by a fused model: (number, cosine), best first.

    Args:
        wanted: The embedding that they should be near to, `[1, d]`, of length 1.

    Raises:
        ConfigError: The model lacks the modality of these items.
    """
    check_makes(model, spec, f"Ranking by the model needs embeddings of each {spec.makes}")
    scores = model.encode(spec.makes, list(drawn)) @ normalize(wanted, dim=1)[0]
    order = scores.argsort(descending=True, stable=True).tolist()
    return [(i, float(scores[i])) for i in order]
