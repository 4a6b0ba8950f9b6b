"""Which encoders suit each other: measured on cached latents before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.config import DataConfig, Recipe, from_dict
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.devices import resolve_device
from fusemix_core.errors import ConfigError, DataError, UnknownNameError
from fusemix_core.evaluation.similarity import Measure, distinct_pairs, measures
from fusemix_core.interfaces import (
    Encoder,
    FitContext,
    LatentTable,
    rows_of,
)
from fusemix_core.jobs.rank_fit import CLOSED_FORM, Candidate, Pairing, pairings_of
from fusemix_core.latents.tables import one_layer
from fusemix_core.metrics.ranks import spearman
from fusemix_core.runs.checks import check_data
from fusemix_core.runs.config import find_recipe, own_items, resolve_encoders, resolve_views
from fusemix_core.runs.encode import Encoding, encode_dataset
from fusemix_core.runs.facts import check_facts
from fusemix_core.runs.fitting import fit_encoders
from fusemix_core.runs.inputs import DataInput, EncoderInput, data_table, encoder_names
from fusemix_core.runs.notices import Notices, Tell
from fusemix_core.runs.plan import EncoderPlan, plan_encoders
from fusemix_core.runs.rates import Rates, encode_rate_key
from fusemix_core.runs.reading import read_usable
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.rows import check_latents
from fusemix_core.specs import EncoderSpec, kind_of

SAMPLE = 1_000
"""Pairs that the measures look at."""
SHUFFLES = 20
NEIGHBOURS = 10
DIRECTIONS = 10
LEAST = 4 * NEIGHBOURS
QUICKER = 1.25
"""A pairing is preferred for its speed from this factor on: rates of one machine vary."""


@dataclass
class Ranking:
    """Pairings, best recall first: the recipe's if there is one, else the closed form's.
    `spearman`: measure → rank correlation of its excess over the pairings with the same recall,
    None where fewer than three tell nothing; with a recipe that of `closed_form`, the score of
    linear CCA, too."""

    modalities: tuple[str, str]
    pairings: list[Pairing]
    spearman: dict[str, float | None]
    pairs: int
    sample: int
    recipe: str | None = None
    notices: Notices | None = None
    validation: int = 0

    @property
    def taken(self) -> Pairing:
        """The first pairing, or the quickest of those that are not shown to be behind it."""
        first = self.pairings[0]
        close = [p for p in self.pairings if p is first or p.tied]
        timed = [(p.seconds, i) for i, p in enumerate(close) if p.seconds is not None]
        if first.seconds is None or QUICKER * min(timed)[0] > first.seconds:
            return first
        return close[min(timed)[1]]

    def as_dict(self) -> dict[str, Any]:
        return {
            "modalities": list(self.modalities),
            "take": [self.taken.a, self.taken.b],
            "pairs": self.pairs,
            "validation": self.validation,
            "sample": self.sample,
            "recipe": self.recipe,
            "pairings": [p.as_dict() for p in self.pairings],
            "spearman": self.spearman,
            **({} if self.notices is None else self.notices.as_dict()),
        }


def rank(
    a: Sequence[EncoderInput],
    b: Sequence[EncoderInput],
    data: DataInput | None = None,
    *,
    modalities: Sequence[str] | None = None,
    views: Mapping[str, str] | None = None,
    recipe: str | Mapping[str, Any] | None = None,
    sample: int = SAMPLE,
    shuffles: int = SHUFFLES,
    seed: int = 0,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Ranking:
    """Every encoder of `a` with every encoder of `b`, as `fusemix rank` shows them.

    a, b: encoders of one modality each, as `align` takes them. modalities: how the data call them
    (by default as the encoders do, or `a` and `b` if that is one name). views: modality → view;
    with `layers` each layer is a candidate of its own. Measures look at `sample` training pairs of
    items that occur once; each has the `value`, what it is by `chance` (the mean of `shuffles`
    random pairings of the same latents), the `excess` over that, (value - chance) / (1 - chance),
    and `p`, how often the best of all pairings is as high when items are shuffled: that is what
    choosing the best of many layers must be held against. `recall_at_1` and `score` (mean recall)
    are those of linear CCA on the validation split, both directions. With a recipe, a name or a
    table as `align` takes, that is fitted to each pairing too, which takes as long as so many runs:
    `probe` has its best `recall_at_1` and `score` on the validation split, and its `seconds`.

    Raises a `FusemixError` for anything that the caller can mend.
    """
    reporter = reporter or Reporter()
    named = {"modalities": modalities, "views": views, "recipe": recipe}
    how = {"sample": sample, "seed": seed, "device": device, "tell": reporter.note}
    return run_ranking(plan_ranking(a, b, data, **named, **how), shuffles, reporter)


@dataclass(frozen=True)
class RankingPlan:
    """What is to be compared: names resolved, data read and checked. `sides`: for each of the
    modalities its encoders by name; `objects`: those of them that are loaded."""

    modalities: tuple[str, str]
    sides: tuple[dict[str, EncoderSpec], ...]
    objects: tuple[dict[str, Encoder], ...]
    views: Mapping[str, str]
    config: DataConfig
    dataset: PairedDataset
    how: Encoding
    probe: Recipe | None
    sample: int
    seed: int

    def encodings(self) -> Iterator[tuple[str, str, EncoderSpec, Encoding]]:
        """(modality, name, spec, how it encodes) of each encoder."""
        for modality, specs in zip(self.modalities, self.sides, strict=True):
            for name, spec in specs.items():
                views = resolve_views({modality: spec}, _only(self.views, modality))
                yield modality, name, spec, replace(self.how, views=views)

    def encoders(self) -> list[EncoderPlan]:
        """What is to be encoded, encoder by encoder."""
        return [
            plan_encoders(self.dataset, {m: spec}, how, how.devices[0].type)[m]
            for m, _, spec, how in self.encodings()
        ]


def plan_ranking(
    a: Sequence[EncoderInput],
    b: Sequence[EncoderInput],
    data: DataInput | None = None,
    *,
    modalities: Sequence[str] | None = None,
    views: Mapping[str, str] | None = None,
    recipe: str | Mapping[str, Any] | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
    device: str = "auto",
    tell: Tell | None = None,
) -> RankingPlan:
    """What `rank` of the same arguments will do; `tell` gets the notes on the data."""
    probe = None if recipe is None else find_recipe(recipe)
    given = modalities or (None, None)
    found = [_resolved(side, name) for side, name in zip((a, b), given, strict=True)]
    sides, objects = zip(*found, strict=True)
    if modalities is None:
        modalities = [next(iter(specs.values())).modality for specs in sides]
        modalities = modalities if modalities[0] != modalities[1] else ("a", "b")
    first, second = modalities
    _check_views(views, modalities)
    how = Encoding(resolve_device(device))
    firsts = {m: next(iter(s.values())) for m, s in zip(modalities, sides, strict=True)}
    takes = {m: spec.takes for m, spec in firsts.items()}
    table = own_items(firsts) if data is None else data_table(data)
    config = from_dict(DataConfig, table, "data.")
    if probe is not None:
        check_facts(probe, config.facts)
    dataset = read_usable(config, takes, seed, tell=tell)
    check_data(dataset, probe or CLOSED_FORM)
    _drawn(_links(dataset, "train"), sample, seed)
    sides = tuple(
        {name: fit_encoders({m: spec}, dataset)[m] for name, spec in side.items()}
        for m, side in zip(modalities, sides, strict=True)
    )
    return RankingPlan(
        (first, second), sides, objects, views or {}, config, dataset, how, probe, sample, seed
    )


def run_ranking(plan: RankingPlan, shuffles: int, reporter: Reporter) -> Ranking:
    """Carry out the plan."""
    dataset, objects = plan.dataset, dict(zip(plan.modalities, plan.objects, strict=True))
    warnings: list[str] = []
    candidates: dict[str, list[Candidate]] = {modality: [] for modality in plan.modalities}
    for modality, name, spec, how in plan.encodings():
        own = objects[modality]
        encoded = encode_dataset(
            dataset,
            {modality: spec},
            how,
            reporter,
            {modality: own[name]} if name in own else None,
            max_bad=plan.config.max_bad,
            ragged=(),
        )
        dataset = encoded.dataset
        warnings += encoded.warnings
        check_latents(dataset, encoded.tables)
        key = encode_rate_key(encoded.extractions[modality].fingerprint, how.devices[0].type)
        seconds = Rates().seconds(key, 1_000)
        table = encoded.tables[modality]
        candidates[modality] += _candidates(name, how.views[modality], table, seconds)
    found = _ranked(
        dataset, candidates, plan.probe, plan.sample, shuffles, plan.seed, plan.how.devices[0]
    )
    found.notices = Notices.of(dataset, warnings)
    return found


def _check_views(views: Mapping[str, str] | None, modalities: Sequence[str]) -> None:
    for modality in views or {}:
        if modality not in modalities:
            raise UnknownNameError.of("modality of this ranking", modality, modalities)


def _resolved(
    side: Sequence[EncoderInput], modality: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(name → spec, name → loaded Encoder) of the encoders of one side."""
    if not side:
        raise ConfigError(
            "No encoder given.", "Example: fusemix rank --a dinov2 --b minilm,e5-base"
        )
    names, objects = encoder_names({str(i): e for i, e in enumerate(side)})
    specs = {
        i: next(iter(resolve_encoders({modality or i: name}).values())) for i, name in names.items()
    }
    kinds = {s.modality for s in specs.values()}
    if len(kinds) > 1:
        raise ConfigError(
            f"The encoders of one side are of several modalities: {', '.join(sorted(kinds))}.",
            "Give --a the encoders of one modality, --b those of the other.",
        )
    return {s.name: s for s in specs.values()}, {specs[i].name: e for i, e in objects.items()}


def _only(views: Mapping[str, str] | None, modality: str) -> dict[str, str]:
    return {m: v for m, v in (views or {}).items() if m == modality}


def _candidates(
    name: str, view: str, table: LatentTable, seconds: float | None
) -> Iterator[Candidate]:
    if kind_of(view) != "layers":
        yield Candidate(name, table, seconds)
        return
    for layer in range(table.shape[0]):
        yield Candidate(f"{name} layer {layer}", one_layer(table, layer), seconds)


def _ranked(
    dataset: PairedDataset,
    candidates: Mapping[str, list[Candidate]],
    probe: Recipe | None,
    sample: int,
    shuffles: int,
    seed: int,
    device: torch.device,
) -> Ranking:
    first, second = candidates
    train = _links(dataset, "train")
    chosen = _drawn(train, sample, seed)
    draw = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(chosen), generator=draw) for _ in range(shuffles)]
    used = measures(NEIGHBOURS, DIRECTIONS)
    values, chances = {}, {}
    for name, measure in used.items():
        prepared = [
            [_prepared(measure, c, chosen[:, k]) for c in candidates[m]]
            for k, m in enumerate((first, second))
        ]
        for i, x in enumerate(prepared[0]):
            for j, y in enumerate(prepared[1]):
                values[name, i, j] = measure.compare(x, y)
                chances[name, i, j] = [
                    measure.compare(x, measure.shuffled(y, order)) for order in orders
                ]
    above = {(i, j): {n: _above_chance(n, (i, j), values, chances) for n in used}
             for _, i, j in values}  # fmt: skip
    context = FitContext(device=device, seed=seed)
    pairings = pairings_of(dataset, candidates, above, probe, context)
    excesses = {n: [p.measures[n]["excess"] for p in pairings] for n in used}
    if probe is not None:
        excesses["closed_form"] = [p.score for p in pairings]
    correlations = {n: _spearman(v, [p.reached for p in pairings]) for n, v in excesses.items()}
    name = None if probe is None else probe.name
    count = len(dataset.splits["validation"])
    pairs = len(train), len(chosen), name
    return Ranking((first, second), pairings, correlations, *pairs, validation=count)


def _links(dataset: PairedDataset, split: str) -> Tensor:
    return torch.from_numpy(dataset.links[dataset.splits[split]])


def _drawn(links: Tensor, most: int, seed: int) -> Tensor:
    """The pairs `[n, 2]` that the measures look at."""
    distinct = distinct_pairs(links, seed)
    if len(distinct) < LEAST:
        raise DataError(
            f"{len(distinct)} training pairs of different items are too few to compare encoders.",
            f"It takes {LEAST} or more.",
        )
    return distinct[:most]


def _prepared(measure: Measure, candidate: Candidate, index: Tensor) -> Tensor:
    return measure.prepare(normalize(rows_of(candidate.table, index).cpu().double(), dim=1))


def _above_chance(
    name: str,
    place: tuple[int, int],
    values: Mapping[tuple, float],
    chances: Mapping[tuple, list[float]],
) -> dict[str, float]:
    value, by_chance = values[name, *place], chances[name, *place]
    if not by_chance:
        return {"value": value, "chance": 0.0, "excess": value, "p": 1.0}
    chance = sum(by_chance) / len(by_chance)
    excess = (value - chance) / max(1 - chance, 1e-9)
    best = [
        max(row) for row in zip(*(c for (n, *_), c in chances.items() if n == name), strict=True)
    ]
    p = (1 + sum(b >= value for b in best)) / (1 + len(best))
    return {"value": value, "chance": chance, "excess": excess, "p": p}


def _spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """The correlation of the ranks, ties sharing theirs."""
    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return spearman(np.array(x), np.array(y))
