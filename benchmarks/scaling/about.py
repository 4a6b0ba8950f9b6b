"""What is known of the sets and methods beside the results: `sets.toml`, and the settings in the
configs of the benchmarks."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1]
SETS = Path(__file__).with_name("sets.toml")
CONFIG = BENCHMARKS / "scaling.toml"


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


def configured(path: Path = CONFIG) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Label → recipe and settings, of the methods that a config gives settings to."""
    if not path.exists():
        return {}
    found = {}
    for method in tomllib.loads(path.read_text()).get("methods", []):
        if isinstance(method, Mapping) and method.get("set"):
            recipe = method["recipe"]
            found[method.get("label", recipe)] = recipe, tuple(method["set"])
    return found
