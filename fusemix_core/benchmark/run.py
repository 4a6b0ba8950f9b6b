"""Carrying out a benchmark: every method on the same latents, splits, choice and budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusemix_core.benchmark.config import BenchConfig, Combination, Method, PairedSet, bench_config
from fusemix_core.benchmark.fitting import (
    fit,
    fitted,
    measured,
    validation_recall,
    warm_up,
    within,
)
from fusemix_core.benchmark.latents import (
    Case,
    Splits,
    make_case,
    read_set,
    sized,
    with_wrong,
)
from fusemix_core.benchmark.lines import add_line, key_of, read_lines, results_in
from fusemix_core.benchmark.searching import search
from fusemix_core.benchmark.summary import is_whole
from fusemix_core.config import PARTS, Recipe, to_dict
from fusemix_core.devices import resolve_device
from fusemix_core.errors import ConfigError, FusemixError
from fusemix_core.interfaces import Encoder, FitContext
from fusemix_core.registry import CORE, registry
from fusemix_core.runs.environment import environment
from fusemix_core.runs.inputs import encoder_names, table_of
from fusemix_core.runs.notices import Tell
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.selection import choose


@dataclass(frozen=True)
class Trial:
    """One fit to be made."""

    paired: PairedSet
    chosen: Combination
    seed: int
    size: int | None
    method: Method

    @property
    def label(self) -> str:
        size = "all pairs" if self.size is None else f"{self.size:,} pairs"
        return f"{self.paired.name}, {self.chosen.label}, {size}, seed {self.seed}: " + (
            self.method.label
        )


def bench(
    config: BenchConfig | Mapping[str, Any],
    out: str | Path,
    *,
    reporter: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Fit every method of the benchmark on every set, combination of encoders, size and seed; what
    `fusemix bench` does.

    config: a `BenchConfig`, or the tables of its TOML form; there an encoder may also be whatever
    `align` takes: an Encoder, its class, or your own latents as an array. Results are added to
    `out/results.jsonl` as they are made, and what is there already (same latents, splits, settings
    and versions) is not made again. A method that fails is a line with its `error`, tried again by
    the next run. Returns the lines of this benchmark, in the order of its trials.

    Raises a `FusemixError` for anything that the caller can mend.

    Example:
        own = {"encoders": {"image": images, "text": texts}}
        bench({"sets": {"mine": own}, "methods": ["auto", "csa"]}, "bench/mine")
    """
    objects: dict[str, Encoder] = {}
    if not isinstance(config, BenchConfig):
        config = bench_config(with_names(config, objects))
    reporter = reporter or Reporter()
    path = results_in(out)
    found = read_lines(path)
    done = {n["key"]: n for n in found if "error" not in n and is_whole(n)}
    check_sets(config)
    device, facts = resolve_device(config.device), environment()
    trials, lines = list(trials_of(config)), []
    case: Case | None = None
    of, warm = None, set()
    for number, trial in enumerate(trials, 1):
        place = trial.paired, trial.chosen.label, trial.seed
        if case is None or place != of:
            of, case = (
                place,
                make_case(trial.paired, trial.chosen, trial.seed, device, reporter, objects),
            )
        line = described(trial, case, config)
        for note in filter(None, (_fewer(trial, case), _other_batch(trial.method, config))):
            reporter.note(note)
        if line["key"] not in done:
            reporter.stage(f"{number:,} of {len(trials):,}  {trial.label}")
            if trial.method.label not in warm:
                warm.add(trial.method.label)
                warm_up(trial.method.recipe, case.splits, device)
            limit = partial(limit_of, trial, case, config, device, done)
            line |= attempt(trial, case, config, device, reporter, limit)
            line["environment"] = facts
            add_line(path, line)
            done[line["key"]] = line
        lines.append(done[line["key"]] | line)
    return lines


def with_names(values: Mapping[str, Any], objects: dict[str, Encoder]) -> dict[str, Any]:
    """The tables with the names of the encoders that were given themselves; these are added to
    `objects` by their names. Sets with only own latents need no source: rows are pairs."""
    sets = values.get("sets")
    if not isinstance(sets, Mapping):
        return dict(values)
    named = {}
    for name, table in sets.items():
        given = table.get("encoders") if isinstance(table, Mapping) else None
        if isinstance(given, Mapping):
            lists = {m: e if isinstance(e, list | tuple) else [e] for m, e in given.items()}
            encoders, first = {}, {}
            for modality, several in lists.items():
                found = [encoder_names({modality: one}) for one in several]
                encoders[modality] = [names[modality] for names, _ in found]
                objects |= {names[modality]: one for names, own in found for one in own.values()}
                first |= found[0][1] if found else {}
            table = {**table, "encoders": encoders}
            if table.get("source") is None:
                table |= table_of(None, first, len(given))
        named[name] = table
    return {**values, "sets": named}


def _fewer(trial: Trial, case: Case) -> str:
    """What to tell if the set has fewer pairs than are asked for."""
    there, what = len(case.splits["train"]), "to fit on"
    if not trial.paired.whole_validation:
        there, what = there + len(case.splits["validation"]), "to fit and choose on"
    if trial.size is None or trial.size <= there:
        return ""
    return (
        f"{trial.paired.name}: {trial.size:,} pairs are asked for, and {there:,} are there {what}: "
        "all are used."
    )


def batch_of(method: Method, config: BenchConfig) -> int | None:
    """The pairs a step that the benchmark says; None if the method's own settings name a batch."""
    return None if method.own_batch else config.batch


def _other_batch(method: Method, config: BenchConfig) -> str:
    """What to tell if the benchmark's batch replaces one that the recipe has itself."""
    own = method.recipe.training and method.recipe.training.batch_size
    batch = batch_of(method, config)
    if not own or batch in (None, own):
        return ""
    return (
        f"{method.label}: {batch:,} pairs a step, as the benchmark says, instead of its own "
        f'{own:,}. To keep that: set = ["training.batch_size={own}"]'
    )


def check_sets(config: BenchConfig, tell: Tell | None = None) -> None:
    """Raise `DataError` or `ConfigError` for a set that can't be benchmarked, before anything is
    encoded; `tell` gets the notes on the data."""
    for paired in config.sets:
        for chosen in config.combinations(paired)[:1]:
            read_set(paired, chosen, config.seeds[0], tell)


def trials_of(config: BenchConfig) -> Iterator[Trial]:
    """All fits, seed by seed, so that a benchmark cut short has compared every method. At each
    place the method whose time limits the others comes first."""
    combinations = {s.name: config.combinations(s) for s in config.sets}
    for seed in config.seeds:
        for paired in config.sets:
            for chosen in combinations[paired.name]:
                for size in paired.pairs:
                    for method in config.methods_of(paired):
                        yield Trial(paired, chosen, seed, size, method)


def described(trial: Trial, case: Case, config: BenchConfig) -> dict[str, Any]:
    """What a fit is of, and its key."""
    facts: dict[str, Any] = {
        "set": trial.paired.name,
        "encoders": {m: s.name for m, s in trial.chosen.specs.items()},
        "views": dict(trial.chosen.views),
        "label": trial.chosen.label,
        "size": trial.size,
        "seed": trial.seed,
        "method": trial.method.label,
        "recipe": to_dict(trial.method.recipe),
        "batch": batch_of(trial.method, config),
        "budget": config.budget,
        "zero_shot_sets": sorted(case.zero_shot),
        "latents": case.digest,
        "test_items": case.test_digest,
        "versions": versions(trial.method),
    }
    paired = trial.paired
    if paired.whole_validation:
        facts["whole_validation"] = True
    if paired.wrong:
        facts["wrong"] = paired.wrong
    if (limit := config.limit_of(trial.method)) is not None:
        facts["limited"] = to_dict(limit)
    if config.search is not None and (space := trial.method.space):
        facts["search"] = {
            "budget": str(config.search),
            "space": {setting: list(values) for setting, values in space.items()},
        }
    return {"key": key_of(facts), **facts}


def limit_of(
    trial: Trial,
    case: Case,
    config: BenchConfig,
    device: torch.device,
    done: Mapping[str, Mapping[str, Any]],
) -> float | None:
    """The seconds that the trial's training may take, None for any number.

    Raises `ConfigError` if the method whose time limits it has none here, as its fit failed.
    """
    limit = config.limit_of(trial.method)
    if limit is None:
        return None
    if limit.times is None:
        return limit.seconds
    method = next(m for m in config.methods if m.label == limit.of)
    line = done.get(described(replace(trial, method=method), case, config)["key"])
    if line is None or "error" in line:
        raise ConfigError(f"'{method.label}', whose time limits the others, has no fit here.")
    # Lines of earlier versions have no time of the processor.
    found = line.get("cpu_seconds", line["seconds"]) if device.type == "cpu" else line["seconds"]
    return limit.times * found


def attempt(
    trial: Trial,
    case: Case,
    config: BenchConfig,
    device: torch.device,
    reporter: Reporter,
    limit: Callable[[], float | None],
) -> dict[str, Any]:
    """What the fit gave, or its error."""
    pairs: dict[str, int] = {}
    paired = trial.paired
    try:
        splits = sized(
            case.splits,
            trial.size,
            trial.seed,
            chooser(trial, case, device, reporter),
            whole_validation=paired.whole_validation,
        )
        splits = with_wrong(splits, paired.wrong, trial.seed)
        pairs = {name: len(part) for name, part in splits.items()}
        return {"pairs": pairs} | _fit(trial, case, splits, config, device, reporter, limit())
    except Exception as error:  # whatever a plugin raises, the others are still to be compared
        message = error.message if isinstance(error, FusemixError) else f"{error!r}"
        reporter.note(f"{trial.label} failed: {message}")
        return {"pairs": pairs, "error": message}


def _fit(
    trial: Trial,
    case: Case,
    splits: Splits,
    config: BenchConfig,
    device: torch.device,
    reporter: Reporter,
    limit: float | None,
) -> dict[str, Any]:
    """One fit of the method, or of the settings of it that a search chooses, measured on test."""
    method, rows = trial.method, len(splits["train"])

    def bounded(recipe: Recipe) -> Recipe:
        return within(recipe, batch_of(method, config), config.budget, rows)

    if config.search is None or not method.space:
        own = bounded(method.recipe)
        return fit(own, splits, trial.seed, device, case.zero_shot, [reporter], limit)
    found, searched = search(
        method.recipe,
        method.space,
        config.search,
        trial.seed,
        device,
        lambda recipe: fitted(bounded(recipe), splits, trial.seed, device, [reporter], limit),
        lambda one: validation_recall(one, splits, device),
    )
    return found.facts | measured(found, splits, device, case.zero_shot) | {"searched": searched}


def chooser(
    trial: Trial, case: Case, device: torch.device, reporter: Reporter
) -> Callable[[int], Tensor] | None:
    """How the method chooses training rows, if it has a selector."""
    part = trial.method.recipe.selector
    if part is None:
        return None
    context = FitContext(device=device, seed=trial.seed)
    return lambda count: choose(part, case.splits["train"], count, context, reporter)


def versions(method: Method) -> dict[str, str]:
    """The distributions that the method's components come from, and their versions."""
    named = {CORE}
    for part in PARTS:
        if (given := getattr(method.recipe, part)) is not None:
            kind = "aligner" if part == "start" else part
            spec = registry.component(kind, given.name)
            named |= {dist for dist, own in registry.all_components(kind) if own is spec}
    return {p.dist: p.version for p in registry.plugins if p.dist in named}
