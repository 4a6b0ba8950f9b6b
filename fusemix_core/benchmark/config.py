"""What a benchmark compares: methods, sets of pairs, encoders, sizes, seeds. Nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from fusemix_core.benchmark.space import SearchBudget, Space, search_space
from fusemix_core.config import DataConfig, Recipe, from_dict, parse_assignment
from fusemix_core.errors import ConfigError, short
from fusemix_core.registry import registry
from fusemix_core.runs.config import find_recipe, resolve_encoders, resolve_views
from fusemix_core.specs import EncoderSpec

DEFAULT = "auto"
"""The method that the others are held against, if it takes part."""

ALL = "all"
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Limit:
    """How long a training by gradient may take: `seconds`, or `times` the fit of the method `of`
    on the same pairs. Counted as `measuring.clock` does."""

    seconds: float | None = None
    times: float | None = None
    of: str = DEFAULT


@dataclass(frozen=True)
class Method:
    """A recipe under the name that tables give it, and a limit of its own.

    `space`: setting → the values that a search tries. `own_batch`: whether its settings name a
    batch, which then stays whatever the benchmark's is.
    """

    label: str
    recipe: Recipe
    limit: Limit | None = None
    space: Space = field(default_factory=dict)
    own_batch: bool = False


@dataclass(frozen=True)
class LabelledSet:
    """Items with a class each, classified by a model that was fitted on other pairs."""

    data: DataConfig
    modality: str
    label_column: str = "label"
    split: str = "all"


@dataclass(frozen=True)
class PairedSet:
    """Pairs, and what is tried on them.

    encoders, views: modality → names, by default the encoder's first view; every combination is
    tried. pairs: how many of the pairs to fit and choose on are used, `None` all of them; with
    `whole_validation` they count the pairs to fit on, and the validation split stays whole.
    methods: the labels of those that are tried (all). wrong: the share of the training pairs whose
    partners are exchanged.
    """

    name: str
    data: DataConfig
    encoders: Mapping[str, tuple[str, ...]]
    pairs: tuple[int | None, ...]
    views: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    zero_shot: Mapping[str, LabelledSet] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    whole_validation: bool = False
    wrong: float = 0.0


@dataclass(frozen=True)
class Combination:
    """One encoder and view a modality."""

    specs: Mapping[str, EncoderSpec]
    views: Mapping[str, str]

    @property
    def label(self) -> str:
        """`dinov2 + minilm (layers)`; an encoder that is named by file goes by its class."""
        names = {m: s.name.rpartition(".py:")[2] for m, s in self.specs.items()}
        return " + ".join(
            names[m] if self.views[m] == s.views[0] else f"{names[m]} ({self.views[m]})"
            for m, s in self.specs.items()
        )


@dataclass(frozen=True)
class BenchConfig:
    """A whole benchmark.

    budget: how many pairs a method that is trained by gradient may see in all, so the objective's
    rows; batch: of these at a step (None: the recipe's own); limit: how long it may take. Methods
    in closed form have none of these. search: how long the settings of each method are tried on
    validation (None: they stay as they are).
    """

    methods: tuple[Method, ...]
    sets: tuple[PairedSet, ...]
    seeds: tuple[int, ...]
    batch: int | None = None
    budget: int | None = None
    device: str = "auto"
    limit: Limit | None = None
    search: SearchBudget | None = None

    def combinations(self, paired: PairedSet) -> list[Combination]:
        """Raises for an unknown encoder or view, or a package that is not installed."""
        found = []
        for names in product(*paired.encoders.values()):
            specs = resolve_encoders(dict(zip(paired.encoders, names, strict=True)))
            choices = [paired.views.get(m, (specs[m].views[0],)) for m in specs]
            for views in product(*choices):
                given = dict(zip(specs, views, strict=True))
                found.append(Combination(specs, resolve_views(specs, given)))
        return found

    def methods_of(self, paired: PairedSet) -> list[Method]:
        """Those that are tried on the set; one whose time limits another comes first."""
        own = [m for m in self.methods if not paired.methods or m.label in paired.methods]
        return sorted(own, key=lambda m: m.label not in self.references(own))

    def references(self, methods: Sequence[Method]) -> set[str]:
        """The labels of those whose time limits one of the methods."""
        limits = [self.limit_of(m) for m in methods]
        return {limit.of for limit in limits if limit is not None and limit.times is not None}

    def limit_of(self, method: Method) -> Limit | None:
        """The method's own limit, or that of all; none for a closed form, or for the method whose
        own time that is."""
        limit = method.limit or self.limit
        if limit is None or method.recipe.training is None:
            return None
        return None if limit.times is not None and limit.of == method.label else limit


TOP = {"methods", "seeds", "pairs", "train", "batch", "budget", "limit", "search", "device", "sets"}
OF_A_SET = {"encoders", "views", "pairs", "train", "wrong", "zero_shot", "methods"}


def bench_config(values: Mapping[str, Any], root: Path = Path()) -> BenchConfig:
    """The benchmark that the tables of a TOML file describe; paths of data are below `root`.

    Raises a `ConfigError`, or `UnknownNameError`, for anything in it that can't be used.
    """
    _known(values, TOP, "")
    sets = values.get("sets")
    if not isinstance(sets, Mapping) or not sets:
        raise ConfigError("The benchmark has no set of pairs.", "Add --data PATH, or [sets.NAME].")
    seeds = values.get("seeds", 3)
    if type(seeds) is int:
        seeds = range(min(seeds, MOST_SEEDS + 1))
    numbers = {k: values.get(k) for k in ("batch", "budget")}
    for name, number in numbers.items():
        if number is not None and (type(number) is not int or number < 2):
            raise ConfigError(f"{name} is {number!r}.", "It is a number of pairs, 2 or more.")
    fits = isinstance(seeds, Sequence) and 0 < len(seeds) <= MOST_SEEDS
    if not fits or not all(type(s) is int for s in seeds):
        raise ConfigError(
            f"seeds is {short(repr(values['seeds']))}.",
            f"Give a number of seeds, {MOST_SEEDS:,} at most, or a list.",
        )
    methods = tuple(_method(m) for m in _list(values.get("methods") or all_recipes(), "methods"))
    labels = [m.label for m in methods]
    if repeated := {n for n in labels if labels.count(n) > 1}:
        raise ConfigError(f"Two methods are called {repeated.pop()!r}.", "Give them a label each.")
    every = {k: values[k] for k in ("pairs", "train") if k in values}
    device = values.get("device", "auto")
    if not isinstance(device, str):
        raise ConfigError(f"device is {device!r}.", 'Example: device = "cpu"')
    config = BenchConfig(
        methods,
        tuple(_set(n, _table(t, f"sets.{n}"), every, labels, root) for n, t in sets.items()),
        tuple(seeds),
        numbers["batch"],
        numbers["budget"],
        device,
        _limit(values.get("limit"), "limit"),
        SearchBudget.of(values["search"]) if values.get("search") is not None else None,
    )
    for paired in config.sets:
        own = config.methods_of(paired)
        if missing := config.references(own) - {m.label for m in own}:
            raise ConfigError(
                f"limit.of: no method of sets.{paired.name} is called {missing.pop()!r}.",
                "Add it to `methods`.",
            )
    return config


def all_recipes() -> list[str]:
    """Every registered recipe, the default first."""
    names = sorted(spec.name for _, spec in registry.all_components("recipe"))
    return sorted(names, key=lambda n: n != DEFAULT)


def _method(given: Any) -> Method:
    """From `"name"` or `{recipe, label, set, limit, search}`."""
    table = {"recipe": given} if isinstance(given, str) else given
    if not isinstance(table, Mapping) or "recipe" not in table:
        raise ConfigError(
            f"{given!r} is not a method.", 'Write "NAME" or {recipe = "NAME", set = ["dim=256"]}.'
        )
    _known(table, {"recipe", "label", "set", "limit", "search"}, "methods.")
    changes = _texts(table.get("set", []), "methods.set")
    recipe = find_recipe(table["recipe"], changes)
    if recipe.pairs is not None:
        raise ConfigError(
            f"The method {recipe.name!r} says on how many pairs to fit.",
            "Leave that to the benchmark's own `pairs`; a method may have a `selector`.",
        )
    label = table.get("label") or " ".join([recipe.name, *changes])
    own_batch = any(parse_assignment(c)[0] == ["training", "batch_size"] for c in changes)
    return Method(
        "".join(_texts(label, "methods.label")),
        recipe,
        _limit(table.get("limit"), "methods.limit"),
        search_space(table["recipe"], recipe, changes, table.get("search")),
        own_batch,
    )


def _limit(given: Any, at: str) -> Limit | None:
    """From seconds, or `{times, of}`."""
    table = given if isinstance(given, Mapping) else {"seconds": given}
    _known(table, {"seconds", "times", "of"}, f"{at}.")
    numbers = [table[k] for k in ("seconds", "times") if table.get(k) is not None]
    if given is None:
        return None
    if len(numbers) != 1 or type(numbers[0]) not in (int, float) or not 0 < numbers[0] < math.inf:
        raise ConfigError(
            f"{at} is {short(repr(given))}.",
            'Write seconds, limit = 600, or {times = 5, of = "auto"}: five times that one\'s time.',
        )
    return Limit(**table)


def _set(
    name: str,
    table: Mapping[str, Any],
    every: Mapping[str, Any],
    methods: Sequence[str],
    root: Path,
) -> PairedSet:
    """A set of its own table; `every` has the sizes of those that name none."""
    at = f"sets.{name}."
    if not {"pairs", "train"} & set(table):
        table = {**table, **every}
    if {"pairs", "train"} <= set(table):
        raise ConfigError(
            f"{at}pairs and {at}train are both given.",
            "`pairs` counts those to fit and choose on, `train` those to fit on; give one.",
        )
    counted = "train" if "train" in table else "pairs"
    wrong = table.get("wrong", 0.0)
    if type(wrong) not in (int, float) or not 0 <= wrong <= 1:
        raise ConfigError(f"{at}wrong is {short(repr(wrong))}.", "It is a share, 0 to 1.")
    encoders = _several(table, "encoders", at)
    if len(encoders) < 2:
        raise ConfigError(f"{at}encoders names fewer than two modalities.", "Two are needed.")
    own = tuple(_texts(table.get("methods", []), f"{at}methods"))
    for label in own:
        if label not in methods:
            raise ConfigError(f"{at}methods: no method is called {label!r}.")
    return PairedSet(
        name,
        _data({k: v for k, v in table.items() if k not in OF_A_SET}, root, at),
        encoders,
        tuple(_size(p, f"{at}{counted}") for p in _list(table.get(counted, ALL), at)),
        _several(table, "views", at),
        {
            n: _labelled(_table(t, f"{at}zero_shot.{n}"), root, f"{at}zero_shot.{n}.")
            for n, t in _table(table.get("zero_shot") or {}, f"{at}zero_shot").items()
        },
        own,
        counted == "train",
        float(wrong),
    )


def _labelled(table: Mapping[str, Any], root: Path, at: str) -> LabelledSet:
    own = {k: table[k] for k in ("modality", "label_column", "split") if k in table}
    if "modality" not in own:
        raise ConfigError(f"{at}modality is missing.", "It says what is classified.")
    for key, value in own.items():
        if not isinstance(value, str):
            raise ConfigError(f"{at}{key} is {short(repr(value))}, which is not a name.")
    return LabelledSet(_data({k: v for k, v in table.items() if k not in own}, root, at), **own)


def _data(table: Mapping[str, Any], root: Path, at: str) -> DataConfig:
    """A `DataConfig` of a table whose paths are below `root`."""
    from fusemix_core.data.held import data_table, held  # imports numpy

    if table.get("source") is None or not len(table["source"]):
        raise ConfigError(f"{at}source is missing.", "It is the path of the data.")
    data = from_dict(DataConfig, data_table(table), at)

    def below(source: str) -> str:
        return str(root / source) if held(source) is None else source

    return replace(
        data,
        source=tuple(map(below, data.source)),
        validation=data.validation and below(data.validation),
        test=data.test and below(data.test),
    )


def _size(value: Any, at: str) -> int | None:
    if value == ALL or value is None:
        return None
    if type(value) is not int or value < 4:
        raise ConfigError(f"{at} contains {value!r}.", f'Numbers from 4 on, or "{ALL}".')
    return value


def _table(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{at} is {short(repr(value))}, which is not a table.")
    return value


def _several(table: Mapping[str, Any], name: str, at: str) -> dict[str, tuple[str, ...]]:
    """modality → one name or more, of a table of such."""
    found = _table(table.get(name) or {}, f"{at}{name}")
    return {m: tuple(_texts(names, f"{at}{name}.{m}")) for m, names in found.items()}


def _texts(value: Any, at: str) -> list[str]:
    values = _list(value, at)
    if not all(isinstance(v, str) for v in values):
        raise ConfigError(f"{at} is {short(repr(value))}, which is not a list of names.")
    return values


def _list(value: Any, at: str) -> list[Any]:
    if isinstance(value, str | int | Mapping):
        return [value]
    if not isinstance(value, Sequence):
        raise ConfigError(f"{at.rstrip('.')} is {value!r}, which is not a list.")
    return list(value)


def _known(table: Mapping[str, Any], known: set[str], at: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"{at}{key} is not a setting.", f"Known: {', '.join(sorted(known))}.")
