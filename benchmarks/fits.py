"""Fits of two recipes side by side on cached latents, kept one JSON line a fit.

A set is split anew by every seed. Of its training and validation rows a smaller size takes a seeded
sample; the test rows are those of the whole set whatever the size, so that recall from 500 pairs is
measured as finely as recall from all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.results import machine
from fusemix_core.benchmark.latents import Splits, sized
from fusemix_core.config import Part, Recipe
from fusemix_core.evaluation.retrieval import retrieval
from fusemix_core.interfaces import Callback, FitContext, PairedLatents, ResidentLatents
from fusemix_core.registry import registry
from fusemix_core.runs.config import build_config, find_recipe
from fusemix_core.runs.embeddings import embed_split
from fusemix_core.runs.encode import Encoding, encode_dataset
from fusemix_core.runs.plan import make_plan
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.scorers import BANK_MOST

DEFAULT, PAPER = "auto", "fusemix"
SCORERS = ("cosine", "csls")
REPEATS = {DEFAULT: 3, PAPER: 1}
"""How often a fit is timed: the median counts. In the minutes of the other, noise is little."""

CPU = torch.device("cpu")


class PairedSet(Protocol):
    """Latents of pairs; `sizes` counts the pairs to fit and choose on, None all there are."""

    name: str
    sizes: Sequence[int | None]

    def splits(self, seed: int) -> Splits:
        """`train`, `validation` and `test` of this seed."""
        ...


@dataclass(frozen=True)
class FromFiles:
    """A dataset on disk, through the latent store; `source` and `data` as `fusemix align` takes
    them."""

    name: str
    encoders: Mapping[str, str]
    source: Path
    data: Mapping[str, Any]
    sizes: Sequence[int | None] = (500, 1500, None)

    def splits(self, seed: int) -> Splits:
        data = {"source": [str(self.source)], **self.data}
        config, specs = build_config({"encoders": self.encoders, "data": data, "seed": seed})
        plan = make_plan(config, specs)
        how = Encoding(CPU, config.dtype, config.store_dtype, views=plan.views)
        encoded = encode_dataset(
            plan.dataset, plan.specs, how, Reporter(), max_bad=config.data.max_bad, ragged=()
        )
        return {name: encoded.paired(name) for name in encoded.dataset.splits}


@dataclass(frozen=True)
class Generated:
    """Two noisy views of the same hidden vectors: shows in seconds that the benchmark works."""

    name: str = "generated"
    pairs: int = 400
    sizes: Sequence[int | None] = (120, None)

    def splits(self, seed: int) -> Splits:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        hidden = normal(self.pairs, 16)
        tables = {
            m: ResidentLatents(hidden @ normal(16, d) + normal(self.pairs, d))
            for m, d in (("image", 48), ("text", 32))
        }
        of = torch.randperm(self.pairs, generator=generator)[:, None].expand(-1, 2)
        parts = of.split([self.pairs - 2 * (self.pairs // 8)] + [self.pairs // 8] * 2)
        return {
            name: PairedLatents(tables, part)
            for name, part in zip(("train", "validation", "test"), parts, strict=True)
        }


@dataclass
class Trajectory(Callback):
    """[seconds since the start, step, validation R@1, score] at each evaluation."""

    began: float = field(default_factory=time.perf_counter)
    points: list[tuple[float, int, float, float]] = field(default_factory=list)

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        if "score" in metrics:
            seconds = time.perf_counter() - self.began
            self.points.append((seconds, step, metrics["recall_at_1"], metrics["score"]))


def fit(recipe: Recipe, splits: Splits, seed: int) -> dict[str, Any]:
    """One fit: its `seconds`, `trajectory` and, by scorer, `test` recalls in percent.

    Scorers learn from training pairs only; weights are chosen on validation, by the aligner.
    """
    aligner = registry.build("aligner", recipe.aligner)
    noted = Trajectory()
    context = FitContext(device=CPU, seed=seed, callbacks=[noted])
    adapters = aligner.fit(splits["train"], splits["validation"], recipe, context)
    seconds = time.perf_counter() - noted.began
    train = embed_split(adapters, splits["train"], CPU, most=BANK_MOST)
    test = embed_split(adapters, splits["test"], CPU)
    found = {}
    for name in SCORERS:
        scorer = registry.build("scorer", Part(name))
        scorer.fit(train.embeddings)
        found[name] = means(retrieval(test.embeddings, test.links, scorer.score, resamples=0))
    trajectory = [[round(s, 4), step, r1, score] for s, step, r1, score in noted.points]
    return {"seconds": round(seconds, 3), "trajectory": trajectory, "test": found}


def means(found: Mapping[str, Any]) -> dict[str, float]:
    """R@1, R@5 and R@10 of a retrieval, means over directions."""
    directions = found["directions"].values()
    return {k: sum(d[k] for d in directions) / len(directions) for k in ("r1", "r5", "r10")}


def fit_all(
    sets: Sequence[PairedSet],
    seeds: Sequence[int],
    settings: Mapping[str, list[str]],
    kept: Path,
) -> Iterator[dict[str, Any]]:
    """The fits of every set, size, seed and recipe: those in the file `kept`, and what it lacks,
    which is added to it as it is made. `settings` are those of each recipe.

    A line says what it was made with; delete it to have it made again.
    """
    done = {key(one): one for one in read(kept)}
    for paired in sets:
        for seed in seeds:
            whole = None
            for size in paired.sizes:
                for name, changes in settings.items():
                    label = {"set": paired.name, "size": size, "seed": seed, "recipe": name}
                    if key(label) not in done:
                        whole = whole or paired.splits(seed)
                        made = label | timed(name, changes, sized(whole, size, seed), seed)
                        with open(kept, "a") as file:
                            file.write(json.dumps(made) + "\n")
                        done[key(label)] = made
                    yield done[key(label)]


def timed(name: str, changes: list[str], splits: Splits, seed: int) -> dict[str, Any]:
    """The fit whose time is the median of the repeats, and what it was made with."""
    warm_up()
    recipe = find_recipe(name, changes)
    fits = [fit(recipe, splits, seed) for _ in range(REPEATS[name])]
    facts = {
        "settings": changes,
        "pairs": {split: len(rows) for split, rows in splits.items()},
        "threads": torch.get_num_threads(),
        "machine": machine(),
    }
    return facts | sorted(fits, key=lambda f: f["seconds"])[len(fits) // 2]


@cache
def warm_up() -> None:
    """A small fit that nobody times: a process's first products and factorisations are slow."""
    fit(find_recipe(DEFAULT), Generated().splits(0), 0)


def key(one: Mapping[str, Any]) -> tuple[Any, ...]:
    return one["set"], one["size"], one["seed"], one["recipe"]


def read(kept: Path) -> list[dict[str, Any]]:
    if not kept.exists():
        return []
    return [json.loads(line) for line in kept.read_text().splitlines()]
