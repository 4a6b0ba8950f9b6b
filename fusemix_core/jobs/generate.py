"""Generating from items of any modality: the config, the plan, and the files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusemix_core.data.asked import modality_of
from fusemix_core.data.media import Shown, medium
from fusemix_core.errors import ConfigError, short
from fusemix_core.fused import FusedModel
from fusemix_core.generation.conditions import Conditions, FusedLatents, How, check_makes
from fusemix_core.generation.files import origin_of, save_generated, slug
from fusemix_core.generation.loading import (
    LoadedGenerator,
    load_generator,
    options_of,
    ranked,
)
from fusemix_core.generation.mixing import between, mixed
from fusemix_core.generation.spaces import fixed_modality, space_of
from fusemix_core.registry import check_options, registry
from fusemix_core.reports.gallery import Case, CaseGroup, CaseItem, GalleryPage, write_gallery
from fusemix_core.runs.folder import write_text
from fusemix_core.runs.models import load_model
from fusemix_core.runs.reporter import Reporter
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


@dataclass(frozen=True)
class Drawn:
    """A generated item: `at` is its place in a strip from 0 to 1, `score` the model's cosine if it
    was ranked."""

    item: Any
    seed: int
    at: float | None = None
    score: float | None = None
    path: Path = Path()

    def as_dict(self) -> dict[str, Any]:
        """File, seed, and what else is known."""
        facts = {"file": str(self.path), "seed": self.seed, "at": self.at, "score": self.score}
        return {k: v for k, v in facts.items() if v is not None}


@dataclass(frozen=True)
class Generated:
    """The result: each item, the page that shows all of them, and notes for the user."""

    plan: GeneratePlan
    drawn: list[Drawn]
    page: Path
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """As `--json` and `generated.json` have it."""
        items = [one.as_dict() for one in self.drawn]
        return {**self.plan.as_dict(), "items": items, "page": str(self.page), "notes": self.notes}


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
    known = [
        replace(config, items=tuple(_with_modality(i, media) for i in config.items)),
        tuple(_with_modality(i, media) for i in config.avoid),
    ]
    config = replace(known[0], avoid=known[1])
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


def generate(
    config: GenerateConfig | GeneratePlan,
    out: str | Path,
    *,
    encoders: Mapping[str, Source] | None = None,
    reporter: Reporter | None = None,
) -> Generated:
    """Generate, and write the files to a folder.

    Each file is named for its items and its seed. The page `index.html` shows all of them, and
    `generated.json` contains all facts. Other files in the folder stay.

    Args:
        config: The config, or its plan.
        out: The folder.
        encoders: See `make_plan`.
        reporter: Gets notes and stages.

    Example:
        config = GenerateConfig("emoji", (Item("audio", "bark.wav"),), model="runs/1", count=4)
        generate(config, "generated").page
    """
    plan = config if isinstance(config, GeneratePlan) else make_plan(config, encoders)
    job = _Job(plan, reporter or Reporter())
    drawn = job.draw()
    return job.write(drawn, Path(out))


class _Job:
    """A plan under way."""

    def __init__(self, plan: GeneratePlan, reporter: Reporter) -> None:
        self.plan, self.config, self.spec = plan, plan.config, plan.spec
        self.reporter = reporter
        self.notes: list[str] = []
        reporter.stage(f"Loading {plan.spec.name}")
        self.draws: LoadedGenerator = load_generator(plan.spec, device=plan.config.device)
        how = How(self.config.correct, self._captions(), self.note)
        self.conditions: Conditions = self.draws.conditions(plan.model, how)

    def note(self, note: str) -> None:
        """Remember a note for the user, and report it once."""
        if note not in self.notes:
            self.notes.append(note)
            self.reporter.note(note)

    def _captions(self) -> Sequence[str]:
        if not self.config.captions:
            return ()
        path = Path(self.config.captions)
        if not path.is_file():
            raise ConfigError(f"{short(path)} does not exist.", "--captions: a text per line.")
        lines = path.read_text(encoding="utf-8").splitlines()
        return [line.strip() for line in lines if line.strip()]

    def draw(self) -> list[Drawn]:
        """Make all of it."""
        config, seeds = self.config, self._seeds()
        self.reporter.stage("Generating")
        asked = [(i.modality, i.value) for i in config.items]
        negative = None
        if config.avoid:
            away = [(i.modality, i.value) for i in config.avoid]
            negative = self.draws.mixture(self.conditions, away, seeds)
        if config.strip:
            return self._strip(asked, seeds, negative)
        condition = self.draws.mixture(self.conditions, asked, seeds, config.weights or None)
        items = self._made(condition, seeds, negative)
        drawn = [Drawn(item, seed) for item, seed in zip(items, seeds, strict=True)]
        return self._best(drawn) if config.rerank > 1 else drawn

    def _seeds(self) -> list[int]:
        """Of all that is made: more than are kept, if they are ranked."""
        config = self.config
        return list(range(config.seed, config.seed + config.count * config.rerank))

    def _made(self, condition: Any, seeds: Sequence[int], negative: Any) -> list[Any]:
        return self.draws.draw(condition, seeds, negative, self.plan.model, **self.config.options)

    def _strip(
        self, asked: list[tuple[str, str]], seeds: Sequence[int], negative: Any
    ) -> list[Drawn]:
        """A strip for each seed: the noise is the same in all its steps."""
        count = self.config.strip
        if self.spec.condition == "tokens":
            raise ConfigError(f"'{self.spec.name}' is conditioned by tokens, which can't be mixed.")
        ends = [self.draws.mixture(self.conditions, [one], seeds) for one in asked]
        drawn = []
        for i, seed in enumerate(seeds):
            first, last = (rows[i : i + 1] for rows in ends)
            away = None if negative is None else negative[i : i + 1].expand(count, -1)
            items = self._made(between(first, last, count), [seed] * count, away)
            places = torch.linspace(0, 1, count).tolist()
            drawn += [Drawn(x, seed, at=round(at, 3)) for x, at in zip(items, places, strict=True)]
        return drawn

    def _best(self, drawn: list[Drawn]) -> list[Drawn]:
        """Those that fit best by the model, the best first."""
        model = self.plan.model
        assert model is not None  # see `make_plan`
        rows = [model.encode(i.modality, [i.value]) for i in self.config.items]
        wanted: Tensor = mixed(rows, self.config.weights or None)
        order = ranked([d.item for d in drawn], wanted, model, self.spec)
        return [replace(drawn[i], score=round(s, 4)) for i, s in order[: self.config.count]]

    # -- files -----------------------------------------------------------------------------------

    def write(self, drawn: list[Drawn], out: Path) -> Generated:
        """Write the files, the page and `generated.json`."""
        written = []
        for one in drawn:
            own = {k: v for k, v in one.as_dict().items() if k != "file"}
            path = save_generated(out / self._name(one), one.item, {**self._facts, **own})
            written.append(replace(one, path=path))
        page = self._page(written, out)
        done = Generated(self.plan, written, page, self.notes)
        facts = json.dumps(done.as_dict(), indent=1, ensure_ascii=False)
        write_text(out / "generated.json", facts + "\n")
        return done

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """The facts that each file contains beside its seed."""
        config = self.config
        facts: dict[str, Any] = origin_of(self.spec)
        facts["from"] = [{"modality": i.modality, "item": i.name} for i in config.items]
        if config.weights:
            facts["weights of items"] = list(config.weights)
        if config.avoid:
            facts["not"] = [{"modality": i.modality, "item": i.name} for i in config.avoid]
        if isinstance(self.conditions, FusedLatents):
            name_for = self.conditions.corrections.name_for
            facts["corrections"] = {m: name_for(m) for m in {i.modality for i in config.items}}
        return facts | {"options": {**options_of(self.spec), **config.options}}

    def _name(self, one: Drawn) -> str:
        """`bark-0`, `bark+a-red-car-0`, `bark-to-a-red-car-0-3`: from what, the seed, the step."""
        names = [
            slug(Path(i.name).stem if i.name != i.value else i.name) for i in self.config.items
        ]
        if one.at is None:
            return f"{'+'.join(names)}-{one.seed}"
        return f"{'-to-'.join(names)}-{one.seed}-{round(one.at * (self.config.strip - 1))}"

    def _page(self, drawn: list[Drawn], out: Path) -> Path:
        """The page that shows what was made, and from what."""
        takes = self.conditions.media
        sources = [
            CaseItem(i.modality, _shown(i, takes.get(i.modality, "text")))
            for i in self.config.items
        ]
        seeds = dict.fromkeys(one.seed for one in drawn) if self.config.strip else [None]
        cases = []
        for seed in seeds:
            own = [one for one in drawn if seed is None or one.seed == seed]
            shown = [CaseItem(_label(one), _made_shown(one.item)) for one in own]
            cases.append(Case("" if seed is None else f"Seed {seed}", "", shown))
        made_by = ", ".join(f"{k} {v}" for k, v in origin_of(self.spec).items())
        page = GalleryPage(
            f"Generated by {self.spec.name.partition('@')[0]}",
            f"Made by a model: {made_by}.",
            notes=self.notes,
            groups=[
                CaseGroup("From", "", [Case("", "", sources)]),
                CaseGroup("Generated", "", cases, wide=True),
            ],
        )
        return write_gallery(out / "index.html", page)


def _label(one: Drawn) -> str:
    """The caption of an image: its place in a strip, or its seed and score."""
    if one.at is not None:
        return f"{one.at:.2f}"
    score = "" if one.score is None else f", {one.score:.3f}"
    return f"seed {one.seed}{score}"


def _shown(item: Item, takes: str) -> Shown:
    kind = medium(takes)
    return kind.show(item.name, lambda: kind.decode(item.value))


def _made_shown(item: Any) -> Shown:
    return Shown(text=item) if isinstance(item, str) else Shown(image=item)
