"""The evaluator `generation`: does what is drawn from an item show what the item is of?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fusemix_core.data.media import medium
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.evaluation.generated import difference_with_interval, ratio_with_interval
from fusemix_core.fused import FusedModel
from fusemix_core.generation.judging import Judge, Real, judge_of
from fusemix_core.generation.loading import load_generator
from fusemix_core.generation.measuring import Drawing, Question, held_out_distance, judged
from fusemix_core.generation.shown import section_of, strip_of
from fusemix_core.generation.spaces import fixed_modality
from fusemix_core.interfaces import Evaluator
from fusemix_core.measured import Measured
from fusemix_core.sections import Section


class GenerationEvaluator(Evaluator):
    """Draws from items of a split and has a judge say which concept each image shows.

    The concept of an item is the text that it is paired with, in the fixed modality to which the
    generator is aligned. The judge is an encoder that neither the generator nor the model has. It
    knows a concept by real images of it.

    Args:
        generator: Its name.
        images: A table of real images: the columns `image` and `text`, and `split` if the
            generator was trained on some of them. Without it, the images that the data have.
        judge: An encoder. Without it, the largest installed one that had no part.
        most: Items of each modality that are drawn from; a seeded choice of more.
        count: Images per item.
        correct: How embeddings are brought to the generator's space; see `load_generator`.
        pixels: A side, to which all images are brought before the judge sees them: those that the
            generator really draws. Otherwise sharp real images are compared with coarse ones. 0
            leaves them as they are.
        resamples: Of the bootstrap over items.
        settings: Options of the generator, such as `steps`.

    Example:
        `fusemix eval runs/sounds --data esc10.csv --generate emoji --images emoji.csv`
    """

    def __init__(
        self,
        *,
        generator: str = "",
        images: str = "",
        judge: str = "",
        most: int = 100,
        count: int = 2,
        correct: str = "auto",
        pixels: int = 0,
        resamples: int = 1000,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if not generator:
            raise ConfigError(
                "The evaluator 'generation' needs a generator.", "Example: --generate emoji"
            )
        if most < 2 or count < 1 or pixels < 0:
            raise ConfigError(
                f"{most} items with {count} images of {pixels} pixels can't be measured.",
                "Take at least two items and one image of each.",
            )
        self.generator, self.images, self.judge = generator, images, judge
        self.most, self.count, self.correct, self.pixels = most, count, correct, pixels
        self.resamples, self.settings = resamples, dict(settings or {})
        self._strips: dict[str, bytes] = {}

    def __call__(self, data: Measured) -> dict[str, Any]:
        """Shares in percent of each modality; None for a measure that has nothing to compare.

        Returns:
            `generator`, `judge`, `concepts` (their number), `held_out_distance` of new
            real images to trained ones, and by modality: `items`, `skipped` (without a real image
            of their concept), `classes`, `rows` (what is drawn from → R@1, R@5, R@10, accuracy
            among the classes, IIS, AIS, KID, diversity, copies), `of_text` (R@1 as a share of the
            text's) and `ahead_of_nearest` (R@1 less that of the nearest name), with intervals.

        Raises:
            ConfigError: The model, the generator or the judge do not suit.
            DataError: No item has a concept that the judge knows.
        """
        model = data.model
        if not isinstance(model, FusedModel):
            raise ConfigError("There is no fused model here to generate by.")
        draw = load_generator(self.generator, device=data.device, registry=model.registry)
        if draw.spec.condition != "pooled":
            raise ConfigError(
                f"'{draw.spec.name}' is not conditioned by one vector per item.",
                "Evaluate a generator whose condition is pooled: fusemix generators list",
            )
        target, makes = fixed_modality(draw.spec, model), draw.spec.makes
        named = judge_of(self.judge, draw.spec, model, model.registry)
        judge = Judge(named, data.device, model.registry, self.pixels)
        if target not in data.modalities or not medium(model.encoders[target].takes).language:
            raise ConfigError(
                f"The concept of an item is the text that it is paired with ('{target}'), and the "
                "data have none.",
                "Give data with a text for each item.",
            )
        real = (
            Real.of_source(self.images, named.takes, judge)
            if self.images
            else Real.of_split(data, makes, target, judge)
        )
        at = Drawing(draw, model, target, self.correct, self.count, data.seed, self.settings)
        sources = [m for m in data.modalities if m not in (target, makes)]
        if not sources:
            raise ConfigError(f"The data have nothing to draw from but '{target}'.")
        return {
            "unit": "percent",
            "generator": draw.spec.name,
            "judge": judge.name,
            "concepts": len(real.names),
            "correct": self.correct,
            "images_per_item": self.count,
            "pixels": self.pixels,
            "held_out_distance": held_out_distance(real),
            "modalities": {m: self._of_modality(data, m, at, real, judge) for m in sources},
        }

    def _of_modality(
        self, data: Measured, modality: str, at: Drawing, real: Real, judge: Judge
    ) -> dict[str, Any]:
        items, concepts, skipped = self._items(data, modality, at.target, real)
        rows = data.embeddings[modality][items]
        drawn = {
            "text": at.of_names([real.names[i] for i in concepts.tolist()]),
            modality: at.of_rows(rows, modality),
            "nearest text": at.of_names(at.nearest(rows, modality, real.names)),
            "shuffled": at.of_rows(rows[elsewhere(concepts)], modality),
        }
        self._strips[modality] = strip_of(list(drawn.values()), concepts, self.count)
        sources = torch.arange(len(items)).repeat_interleave(self.count)
        question = Question(
            real,
            concepts[sources],
            sources,
            partners_of(concepts, real, data.seed),
            rows,
            self.resamples,
            data.seed,
        )
        metrics: dict[str, Any] = {"real": question.of_real()}
        firsts = {}
        for name, images in drawn.items():
            metrics[name], firsts[name] = judged(
                images, judge, at.model, at.draw.spec.makes, question
            )
        how = sources, self.resamples, data.seed
        ratio, ratio_bounds = ratio_with_interval(firsts[modality], firsts["text"], *how)
        ahead, ahead_bounds = difference_with_interval(
            firsts[modality], firsts["nearest text"], *how
        )
        return {
            "items": len(items),
            "skipped": skipped,
            "classes": len(question.classes),
            "rows": metrics,
            "of_text": ratio,
            "of_text_interval": ratio_bounds,
            "ahead_of_nearest": ahead,
            "ahead_of_nearest_interval": ahead_bounds,
        }

    def _items(
        self, data: Measured, modality: str, target: str, real: Real
    ) -> tuple[Tensor, Tensor, int]:
        """The items that are drawn from, their concepts, and how many have none."""
        columns = [data.modalities.index(m) for m in (modality, target)]
        links = data.links[:, columns]
        links = links[(links >= 0).all(dim=1)]
        first: dict[int, int] = {}
        for item, text in links.tolist():
            first.setdefault(item, real.concept_of(data.describe(target, text)))
        known = [item for item, concept in first.items() if concept >= 0]
        if len({first[item] for item in known}) < 2:
            raise DataError(
                f"Fewer than two texts of {modality} name a concept with a real image.",
                f"They must be the same texts, such as {_some(real.names)}.",
            )
        order = torch.randperm(len(known), generator=torch.Generator().manual_seed(data.seed))
        items = torch.tensor(known)[order[: self.most].sort().values]
        concepts = torch.tensor([first[item] for item in items.tolist()])
        return items, concepts, len(first) - len(known)

    def sections(self, metrics: Mapping[str, Any], data: Measured) -> list[Section]:
        """One per modality: a table with a row for everything that is drawn from, and a strip."""
        return [
            section_of(modality, metrics, self._strips.get(modality))
            for modality in metrics["modalities"]
        ]


def elsewhere(concepts: Tensor) -> Tensor:
    """int64 `[n]`: for each item another one, of another concept wherever that is possible. Each
    item is taken once."""
    order = concepts.argsort(stable=True)
    most = int(torch.bincount(concepts).max())
    found = torch.empty_like(order)
    found[order] = order.roll(most)
    return found


def partners_of(concepts: Tensor, real: Real, seed: int) -> Tensor:
    """int64 `[n]`: a real image of each item's concept, drawn by seed."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for concept in concepts.tolist():
        images = torch.nonzero(real.concepts == concept)[:, 0]
        found.append(images[torch.randint(len(images), (1,), generator=draw)])
    return torch.cat(found)


def _some(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return f"{shown}, …" if len(names) > 3 else shown
