"""What was measured, in the order the page needs it: a set with its encoders, its sizes, and the
methods at each, by family."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fusemix_core.benchmark.config import DEFAULT
from fusemix_core.benchmark.lines import CHOSEN, Line
from fusemix_core.benchmark.page import slug
from fusemix_core.benchmark.summary import Entry, Place, summarise

PUBLISHED = "fusemix"
"""The method that times are held against, by the name it has in the results."""

LINEAR = "cca"
"""The recipe that zero-shot classification is held against."""

CLOSED, GRADIENT = "closed form", "gradient"


@dataclass(frozen=True)
class At:
    """One size of a setting: the methods that were measured there, in the order of the lines."""

    place: Place
    pairs: int
    entries: Mapping[str, Entry]

    def best(self, names: Iterable[str], scorer: str = CHOSEN) -> Entry | None:
        """The entry with the highest mean of those named that are there."""
        found = [self.entries[n] for n in names if n in self.entries]
        return max(found, key=lambda e: e.interval(scorer)[0], default=None)

    def family(self, family: str) -> list[str]:
        return [n for n in self.entries if family_of(self.entries[n]) == family]


@dataclass(frozen=True)
class Setting:
    """A set with its encoders; its sizes from the smallest. `title` is the name of the set, with
    its encoders if the set was measured with several."""

    set: str
    label: str
    title: str
    sizes: tuple[At, ...]
    failed: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        return slug((self.set, self.label))

    @property
    def methods(self) -> list[str]:
        """The default first, then by recall, each at the largest size that it was measured at."""
        last = {n: at.entries[n].interval(CHOSEN)[0] for at in self.sizes for n in at.entries}
        return sorted(last, key=lambda n: (n != DEFAULT, -last[n]))

    def entries(self, method: str) -> list[tuple[int, Entry]]:
        """(pairs, entry) of a method at each size that it was measured at."""
        return [(at.pairs, at.entries[method]) for at in self.sizes if method in at.entries]


def settings_of(lines: Sequence[Line]) -> list[Setting]:
    """The settings of a results file, in the order they come. Failed fits are left out, with a
    sentence each in `failed`."""
    found: dict[tuple[str, str], dict[Place, dict[str, Entry]]] = {}
    failed: dict[tuple[str, str], list[str]] = {}
    own = clock_of(lines)
    for entry in summarise(on_clock(line, own) for line in lines):
        key = entry.place.set, entry.place.label
        if entry.lines:
            found.setdefault(key, {}).setdefault(entry.place, {})[entry.method] = entry
        size = "all pairs" if entry.place.size is None else f"{entry.place.size:,} pairs"
        for seed, message in entry.errors.items():
            text = message.splitlines()[0] if message else "no reason given"
            failed.setdefault(key, []).append(f"`{entry.method}`, {size}, seed {seed}: {text}")
    settings, several = [], Counter(name for name, _ in found)
    for key, places in found.items():
        sizes = [
            At(place, max(pairs_of(e) for e in entries.values()), entries)
            for place, entries in places.items()
        ]
        sizes.sort(key=lambda at: at.pairs)
        name, label = key
        title = f"{name}: {plain(label)}" if several[name] > 1 else name
        failures = tuple(failed.get(key, ()))
        settings.append(Setting(name, plain(label), title, tuple(sizes), failures))
    return settings


def clock_of(lines: Sequence[Line]) -> str:
    """Which seconds are shown: of the processor, if every fit has them and no machine has a GPU, so
    that other work on it makes no difference; else those on the clock."""
    fits = [line for line in lines if "error" not in line]
    gpus = any(line.get("environment", {}).get("gpus") for line in fits)
    known = all("cpu_seconds" in line for line in fits)
    return "cpu_seconds" if fits and known and not gpus else "seconds"


def on_clock(line: Line, clock: str) -> Line:
    """The line with `seconds` by that clock; `trajectory`: `[seconds, R@1, score]` of each
    evaluation that was the best so far, and of the last."""
    if "error" in line:
        return line
    at = 1 if clock == "cpu_seconds" else 0
    course = [[point[at], *point[-2:]] for point in line.get("trajectory") or ()]
    return {**line, "seconds": line[clock], "trajectory": course}


def plain(label: str) -> str:
    """Encoders without the files that they are from: `Drawings` of `./encoders.py:Drawings`."""
    return re.sub(r"\S+\.py:", "", label)


def pairs_of(entry: Entry) -> int:
    """The pairs to fit and choose on; with a whole validation split at every size, those to fit
    on."""
    whole = any(line.get("whole_validation") for line in entry.lines.values())
    return entry.fitted if whole else entry.pairs


def family_of(entry: Entry) -> str:
    """By gradient or in closed form; the default is a family of its own."""
    if entry.method == DEFAULT:
        return DEFAULT
    trained = any(line["recipe"].get("training") for line in entry.lines.values())
    return GRADIENT if trained else CLOSED


def of_recipe(at: At, recipe: str) -> Entry | None:
    """The first method of that recipe, whatever it is called."""
    for entry in at.entries.values():
        if all(line["recipe"]["name"] == recipe for line in entry.lines.values()):
            return entry
    return None
