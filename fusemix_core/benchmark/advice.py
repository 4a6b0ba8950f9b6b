"""Which recipe to take for a number of pairs, from what was measured at the nearest sizes. Plain
Python, so that the command starts at once."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fusemix_core.benchmark.config import DEFAULT
from fusemix_core.errors import ConfigError

TABLE = Path(__file__).with_name("measured.json")
"""What was measured, by `python -m benchmarks.scaling`."""


NEAR = 4.0
"""Sizes up to this many times larger or smaller are near enough to take a recipe by."""


@dataclass(frozen=True)
class Measured:
    """A method at a measured place.

    `r1`: test R@1 in percent, mean of both directions; `half`: half-width of its 95% interval (None
    with one run). `behind`: how far it is below the best method there, with the 95% interval of the
    difference (None if there is none). `overrides` are its `--set` values, `packages` the
    distributions it comes from. `scorer`: of `r1`.
    """

    method: str
    recipe: str
    overrides: tuple[str, ...]
    packages: tuple[str, ...]
    seconds: float
    r1: float
    half: float | None
    behind: float
    behind_interval: tuple[float, float] | None

    @property
    def surely_behind(self) -> bool:
        """Whether it is below the best method beyond the noise."""
        return self.behind_interval is not None and self.behind_interval[0] > 0


@dataclass(frozen=True)
class Place:
    """A set of pairs with its encoders (modality → name), and how many pairs of it the methods
    were fitted and chosen on."""

    set: str
    about: str
    encoders: Mapping[str, str]
    pairs: int
    seeds: int
    methods: tuple[Measured, ...]

    def is_of(self, modalities: Collection[str]) -> bool:
        return set(self.encoders) == set(modalities)

    def method(self, name: str) -> Measured | None:
        return next((m for m in self.methods if m.method == name), None)

    @property
    def best(self) -> Measured:
        return max(self.methods, key=lambda m: m.r1)

    @property
    def fastest(self) -> Measured:
        """The fastest method that isn't below the best beyond the noise."""
        return min((m for m in self.methods if not m.surely_behind), key=lambda m: m.seconds)

    def best_other(self, name: str) -> Measured | None:
        """The best method but this one."""
        return max((m for m in self.methods if m.method != name), key=lambda m: m.r1, default=None)

    def times(self, pairs: int) -> float:
        """How many times larger or smaller it is than so many pairs, from 1 on."""
        return max(self.pairs / pairs, pairs / self.pairs)

    def distance(self, pairs: int) -> str:
        """How far its size is from so many pairs: `1.6 × yours`."""
        share = self.pairs / pairs
        return f"{share:,.0f} × yours" if share >= 10 else f"{share:.2g} × yours"


@dataclass(frozen=True)
class Advice:
    """A recipe for so many pairs.

    `nearest`: the places that the advice is taken from, one for each set and its encoders, the
    nearest first. `sizes`: the smallest and the largest number of pairs that was measured.
    """

    pairs: int
    modalities: tuple[str, ...]
    nearest: tuple[Place, ...]
    sizes: tuple[int, int]

    @property
    def near(self) -> bool:
        """Whether something was measured at a size near enough."""
        return any(place.times(self.pairs) <= NEAR for place in self.nearest)

    @cached_property
    def take(self) -> Measured:
        """The default unless it is surely behind somewhere; else the method with the highest share
        of the best R@1, over the places, of those measured at all of them."""
        at = [{m.method: m for m in place.methods} for place in self.nearest]
        everywhere = [n for n in at[0] if all(n in found for found in at)]
        if DEFAULT in everywhere and not any(found[DEFAULT].surely_behind for found in at):
            return at[0][DEFAULT]
        tops = [place.best.r1 for place in self.nearest]

        def share(name: str) -> float:
            return sum(f[name].r1 / top for f, top in zip(at, tops, strict=True) if top)

        return at[0][max(everywhere, key=share)] if everywhere else self.nearest[0].best

    @cached_property
    def quick(self) -> Measured | None:
        """The fastest method that isn't surely behind at any place; None if that is `take`."""
        at = [{m.method: m for m in p.methods if not m.surely_behind} for p in self.nearest]
        fine = [n for n in at[0] if all(n in found for found in at)]
        if not fine:
            return None
        fastest = min(fine, key=lambda n: math.prod(found[n].seconds for found in at))
        return None if fastest == self.take.method else at[0][fastest]

    def named(self) -> list[Measured]:
        """The methods that the advice names: to take, the best other and the fastest of a place."""
        found = [self.take, self.quick]
        for place in self.nearest:
            found += [place.best_other(self.take.method), place.fastest]
        return [m for m in found if m is not None]

    @property
    def reason(self) -> str:
        """Why it is the one to take, in a sentence."""
        name, count = self.take.method, len(self.nearest)
        at = "the nearest size measured" if count == 1 else f"the {count} nearest sizes measured"
        if name == DEFAULT:
            others = len({m.method for place in self.nearest for m in place.methods}) - 1
            return f"The best of {others} others is not above `{name}` beyond the noise, at {at}."
        behind = [p for p in self.nearest if (m := p.method(DEFAULT)) and m.surely_behind]
        text = f"`{name}` has the highest R@1 at {at}"
        where = " and ".join(f"{p.set} ({p.pairs:,} pairs)" for p in behind)
        below = f"; `{DEFAULT}` is below the best beyond the noise on {where}" if behind else ""
        return f"{text}{below}."

    @property
    def notes(self) -> list[str]:
        """What makes the advice less sure, and what is faster."""
        notes = []
        if not self.near:
            low, high = self.sizes
            notes.append(
                f"Nothing was measured near {self.pairs:,} pairs, only from {low:,} to {high:,}: "
                "take this as a guess, and measure your own with `fusemix bench`."
            )
        if self.modalities and not all(p.is_of(self.modalities) for p in self.nearest):
            own = [p for p in self.nearest if p.is_of(self.modalities)]
            what = " and ".join(self.modalities)
            notes.append(
                f"The nearest size of {what} is {own[0].distance(self.pairs)}, so sets of other "
                "modalities count too."
                if own
                else f"No set of {what} was measured: these are of other modalities."
            )
        if self.quick is not None:
            place, quick, take = self.nearest[0], self.quick, self.take
            notes.append(
                f"`{quick.method}` isn't below the best beyond the noise either, and faster: on "
                f"{place.set} {seconds_text(quick.seconds)} instead of "
                f"{seconds_text(take.seconds)}, with R@1 {quick.r1:.1f} instead of {take.r1:.1f}."
            )
        return notes

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "pairs": self.pairs,
            "modalities": list(self.modalities),
            "take": asdict(self.take),
            "reason": self.reason,
            "notes": self.notes,
            "quick": self.quick and asdict(self.quick),
            "near": self.near,
            "nearest": [
                {
                    **asdict(place),
                    "times": round(place.times(self.pairs), 3),
                    "best": place.best.method,
                    "fastest_within_noise": place.fastest.method,
                }
                for place in self.nearest
            ],
        }


def advise(places: Sequence[Place], pairs: int, modalities: Collection[str] = ()) -> Advice:
    """Which recipe to take for `pairs` pairs.

    Args:
        places: What was measured: `read_places()`.
        pairs: How many pairs there are to fit and choose on, without the test split.
        modalities: What the pairs are of. Sets of others count if none of these has a size near.

    Raises:
        ConfigError: If `pairs` is below 4, or nothing was measured.

    Example:
        advise(read_places(), 3000, ["image", "text"]).take.recipe
    """
    if pairs < 4:
        raise ConfigError(f"{pairs} pairs can't be fitted and chosen on.", "Give 4 or more.")
    if not places:
        raise ConfigError("Nothing was measured.", "Measure your own: fusemix bench --help")
    by_set: dict[Any, list[Place]] = {}
    for place in places:
        by_set.setdefault((place.set, *sorted(place.encoders.items())), []).append(place)
    closest = [min(of_set, key=lambda p: p.times(pairs)) for of_set in by_set.values()]
    closest.sort(key=lambda p: p.times(pairs))
    own = [p for p in closest if not modalities or p.is_of(modalities)]
    if own and own[0].times(pairs) <= NEAR:
        closest = own
    near = [p for p in closest if p.times(pairs) <= NEAR] or closest[:1]
    nearest = near if not own or own[0] in near else [own[0], *near]
    sizes = [p.pairs for p in places]
    return Advice(pairs, tuple(modalities), tuple(nearest), (min(sizes), max(sizes)))


def seconds_text(seconds: float) -> str:
    """`0.28 s`, `189 s`, `1,240 s`."""
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def read_places(path: Path = TABLE) -> list[Place]:
    """What was measured, as the package has it."""
    return [place_of(p) for p in json.loads(path.read_text(encoding="utf-8"))["places"]]


def place_of(table: Mapping[str, Any]) -> Place:
    """A place from its JSON form, which is `dataclasses.asdict` of it."""
    methods = []
    for one in table["methods"]:
        interval = one["behind_interval"]
        lists: dict[str, Any] = {k: tuple(one[k]) for k in ("overrides", "packages")}
        facts: dict[str, Any] = {**one, **lists, "behind_interval": interval and tuple(interval)}
        methods.append(Measured(**facts))
    place: dict[str, Any] = {**table, "methods": tuple(methods)}
    return Place(**place)
