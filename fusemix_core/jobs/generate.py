"""Generating from items of any modality: the items, the files, and the page that shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusemix_core.data.media import Shown, medium
from fusemix_core.errors import ConfigError, short
from fusemix_core.generation.conditions import Conditions, FusedLatents, How
from fusemix_core.generation.files import origin_of, save_generated
from fusemix_core.generation.loading import LoadedGenerator, load_generator, options_of, ranked
from fusemix_core.generation.mixing import between, mixed
from fusemix_core.reports.gallery import Case, CaseGroup, CaseItem, GalleryPage, write_gallery
from fusemix_core.runs.folder import write_text
from fusemix_core.runs.generating import GenerateConfig, GeneratePlan, Item, make_plan
from fusemix_core.runs.reporter import Reporter
from fusemix_core.saved.encoders import Source

__all__ = ["Drawn", "GenerateConfig", "GeneratePlan", "Generated", "Item", "generate", "make_plan"]


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
        ends: list[Any] = [self.draws.mixture(self.conditions, [one], seeds) for one in asked]
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
        """`bark-0`, `bark+a-red-car-0`, `bark-to-a-red-car-0-3`: items, seed, step of a strip."""
        names = [item.slug for item in self.config.items]
        if one.at is None:
            return f"{'+'.join(names)}-{one.seed}"
        return f"{'-to-'.join(names)}-{one.seed}-{round(one.at * (self.config.strip - 1))}"

    def _page(self, drawn: list[Drawn], out: Path) -> Path:
        """The page that shows what was made, and from what."""
        takes = self.conditions.media
        sources = [CaseItem(i.modality, _shown(i, takes[i.modality])) for i in self.config.items]
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
