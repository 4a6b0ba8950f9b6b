"""What is known of the sets and methods beside the results: `sets.toml`, and the settings in the
configs of the benchmarks."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1]
SETS = Path(__file__).with_name("sets.toml")
CONFIG, TUNED = BENCHMARKS / "scaling.toml", BENCHMARKS / "tuned.toml"


@dataclass(frozen=True)
class Case:
    """A set that is another, `of`, spoilt in a way and to a level."""

    of: str
    name: str
    level: str


@dataclass(frozen=True)
class About:
    """Of each set by name: `about`, a sentence; `shaped`, whether it shaped the default; of a hard
    case `of`, `case` and `level`."""

    sets: Mapping[str, Mapping[str, Any]]

    def text(self, name: str) -> str:
        return self.sets.get(name, {}).get("about", "")

    def shaped(self, name: str) -> bool | None:
        return self.sets.get(name, {}).get("shaped")

    def case(self, name: str) -> Case:
        """What a hard case is; a set that is none is the clean form of itself."""
        own = self.sets.get(name, {})
        return Case(own.get("of", name), own.get("case", ""), own.get("level", "clean"))


def read_about(path: Path = SETS) -> About:
    return About(tomllib.loads(path.read_text()))


@dataclass(frozen=True)
class Method:
    """A method as a config has it: `settings` as `--set` takes them."""

    label: str
    recipe: str
    settings: tuple[str, ...] = ()


def configured(path: Path = CONFIG) -> list[Method]:
    """The methods of a benchmark's config, those of its `methods_file` included."""
    if not path.exists():
        return []
    values = tomllib.loads(path.read_text())
    found = [_method(one) for one in values.get("methods", [])]
    if "methods_file" in values:
        found += configured(path.parent / values["methods_file"])
    return found


def _method(given: str | Mapping[str, Any]) -> Method:
    if isinstance(given, str):
        return Method(given, given)
    settings = tuple(given.get("set", ()))
    return Method(given.get("label", given["recipe"]), given["recipe"], settings)


@dataclass(frozen=True)
class Tuning:
    """How settings were tried: so many for each recipe, the sets, and the seconds of a fit."""

    tried: Mapping[str, int]
    sets: tuple[str, ...]
    seconds: float | None
    seeds: int


def tuning(path: Path = TUNED) -> Tuning | None:
    """What the config of the tuning says; None without one."""
    if not path.exists():
        return None
    values = tomllib.loads(path.read_text())
    tried = Counter(method.recipe for method in configured(path))
    return Tuning(tried, tuple(values["sets"]), values.get("limit"), values.get("seeds", 1))
