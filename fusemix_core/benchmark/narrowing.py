"""A part of a benchmark: some of its sets, sizes, seeds and methods. Nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fusemix_core.benchmark.config import ALL, BenchConfig
from fusemix_core.errors import ConfigError, UnknownNameError

KEYS = ("set", "size", "seed", "method")


def narrowed(config: BenchConfig, only: Mapping[str, Sequence[str]]) -> BenchConfig:
    """The benchmark with the sets, sizes, seeds and methods that `only` names, as texts by key;
    a key that is not there narrows nothing.

    The method whose time limits another one's stays, as it is needed first. Lines have the keys
    that they have in the whole benchmark.

    Raises `ConfigError`, or `UnknownNameError`, for what the benchmark does not have.

    Example:
        narrowed(bench_config(tables), {"size": ["500", "all"], "method": ["csa"]})
    """
    if unknown := [key for key in only if key not in KEYS]:
        raise UnknownNameError.of("part of a benchmark", unknown[0], KEYS)
    names = _taken(only, "set", [s.name for s in config.sets])
    sizes = _taken(only, "size", [_text(p) for s in config.sets for p in s.pairs])
    seeds = _taken(only, "seed", [str(s) for s in config.seeds])
    labels = _taken(only, "method", [m.label for m in config.methods])
    methods = [m for m in config.methods if m.label in labels]
    needed = labels | config.references(methods)
    methods = [m for m in config.methods if m.label in needed]
    sets = [
        replace(s, pairs=tuple(p for p in s.pairs if _text(p) in sizes))
        for s in config.sets
        if s.name in names
    ]
    sets = [s for s in sets if s.pairs and any(m.label in labels for m in config.methods_of(s))]
    if not sets:
        raise ConfigError(
            "No set of the benchmark has what --only names.",
            "Leave out one of them, or see all by --dry-run.",
        )
    return replace(
        config,
        sets=tuple(sets),
        seeds=tuple(s for s in config.seeds if str(s) in seeds),
        methods=tuple(methods),
    )


def _text(size: int | None) -> str:
    return ALL if size is None else str(size)


def _taken(only: Mapping[str, Sequence[str]], key: str, known: Sequence[str]) -> set[str]:
    """The values of a key that are taken; all are known."""
    taken = set(only.get(key, known))
    for value in taken:
        if value not in known:
            raise UnknownNameError.of(f"{key} of the benchmark", value, sorted(set(known)))
    return taken
