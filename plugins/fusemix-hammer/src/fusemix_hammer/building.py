"""Real pairs, and fakes that are made of them, as files and a table."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fusemix_core.config import DataConfig
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.runs.notices import Tell
from fusemix_core.runs.reading import read_usable
from fusemix_hammer.changes import Region, altered, replaced, spliced, square

IMAGE_KINDS = ("image_splice", "image_attribute")
TEXT_KINDS = ("text_swap", "text_attribute")
KINDS = (*IMAGE_KINDS, *TEXT_KINDS)
"""The kinds of change to a pair."""
REAL = "real"
"""The type of a pair that is unchanged."""
MIXTURES = tuple(
    tuple(kind for kind in pair if kind)
    for pair in (
        *((kind, "") for kind in KINDS),
        *((image, text) for image in IMAGE_KINDS for text in TEXT_KINDS),
    )
)
"""A fake has one of these: each kind by itself, or one of either modality. All are as frequent."""
COLUMNS = ("image", "text", "real", "types", "box", "words", "split", "group")
ORIGIN = ("origin", "image_donor", "text_donor")
_MODALITIES = {"image": "image", "text": "text"}


@dataclass(frozen=True)
class Build:
    """How the fakes are made.

    Attributes:
        real: the share of rows that stay unchanged.
        limit: rows at most, drawn at random; 0 for all.
        hard: a column. The text of a swap is that of a row with the same value.
        keep: further columns of the data that the table has, such as a licence.
        words: texts are cut after so many.
        size: pixels of an image's side; it is cut to a square.
        quality: of the WebP that every image is written as, changed or not.
        seed: decides everything that is drawn.
    """

    real: float = 1 / 3
    limit: int = 0
    hard: str = ""
    keep: Sequence[str] = ()
    words: int = 30
    size: int = 256
    quality: int = 90
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.real < 1:
            raise ConfigError(f"The share of real rows is {self.real}.", "It is between 0 and 1.")
        if min(self.words, self.size - 31, self.quality) < 1 or self.quality > 100:
            raise ConfigError(
                f"words={self.words}, size={self.size} and quality={self.quality} can't be used.",
                "One word or more, 32 pixels or more, and a quality from 1 to 100.",
            )


@dataclass
class Made:
    """One row: the pair as it is written, its changes, and the donors of these."""

    image: Image.Image
    text: str
    types: list[str] = field(default_factory=list)
    box: Region | None = None
    words: list[int] = field(default_factory=list)
    image_donor: int | None = None
    text_donor: int | None = None


def build(data: DataConfig, out: Path, how: Build, note: Tell | None = None) -> dict[str, int]:
    """Write images and `pairs.csv` to the folder `out`, and return how many rows each mixture of
    kinds has.

    The splits are those of the data. A donor is a row of the same split, so that no item of one
    split is seen in another.

    Args:
        data: pairs of the modalities image and text.
        out: a folder that isn't there yet.
        how: the options.
        note: is called with notes on the rows.

    Raises:
        ConfigError: `out` exists.
        DataError: the data can't be read, or a split has too few rows.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already.", "Name another: fusemix hammer-data FOLDER")
    pairs = Pairs.read(data, how, note)
    (out / "images").mkdir(parents=True)
    counts: dict[str, int] = {}
    with (out / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, *ORIGIN, *how.keep])
        for number, (row, made) in enumerate(pairs.made()):
            name = f"images/{number:06d}.webp"
            made.image.save(out / name, "WEBP", quality=how.quality, method=2)
            writer.writerow(pairs.line(row, name, made))
            kinds = ";".join(made.types) or REAL
            counts[kinds] = counts.get(kinds, 0) + 1
    return counts


@dataclass(frozen=True)
class Pairs:
    """The rows that fakes are made of: their items, and for each row its split and its pool."""

    dataset: PairedDataset
    how: Build
    rows: np.ndarray
    split: Mapping[int, str]
    pools: Mapping[int, np.ndarray]
    """row → rows that may give it a text."""
    peers: Mapping[str, np.ndarray]
    """split → rows that may give anything else."""

    @classmethod
    def read(cls, data: DataConfig, how: Build, note: Tell | None = None) -> Pairs:
        """The pairs of the data, `how.limit` of them at most."""
        facts = {f"kept {column}": f"{column}:text" for column in how.keep}
        if how.hard:
            facts["hard"] = f"{how.hard}:class"
        if data.group_by:
            facts["grouped"] = f"{data.group_by}:class"
        config = _with_facts(data, facts)
        options = {"hard": "--hard ", **{f"kept {column}": "--keep " for column in how.keep}}
        options["grouped"] = "--group-by "
        dataset = read_usable(
            config, _MODALITIES, how.seed, tell=note, repeats=True, options=options
        )
        every = np.sort(np.concatenate(list(dataset.splits.values())))
        draw = np.random.default_rng(how.seed)
        rows = every
        if how.limit and how.limit < len(every):
            rows = np.sort(draw.choice(every, how.limit, replace=False))
        split, peers = {}, {}
        for name, members in dataset.splits.items():
            own = np.intersect1d(members, rows)
            if len(members) and len(own) < 2:
                raise DataError(
                    f"The {name} split has {len(own)} rows to make fakes of; 2 or more are needed.",
                    "Give more rows, or another split: --validation-fraction, --test-fraction.",
                )
            peers[name] = own
            split |= dict.fromkeys(own.tolist(), name)
        hard = dataset.facts["hard"].values if how.hard else np.zeros(len(dataset), np.int64)
        pools = {row: peers[name][hard[peers[name]] == hard[row]] for row, name in split.items()}
        return cls(dataset, how, rows, split, pools, peers)

    def made(self) -> Iterator[tuple[int, Made]]:
        """Every row, unchanged or as a fake, in the order of the data."""
        for row in self.rows.tolist():
            draw = np.random.default_rng((self.how.seed, row))
            mixture: tuple[str, ...] = ()
            if draw.random() >= self.how.real:
                mixture = MIXTURES[int(draw.integers(len(MIXTURES)))]
            yield row, self._changed(row, mixture, draw)

    def _changed(self, row: int, mixture: Sequence[str], draw: np.random.Generator) -> Made:
        """The row with these kinds of change. One that can't be made is left out."""
        made = Made(self.image(row), self.text(row))
        for kind in mixture:
            getattr(self, f"_{kind}")(row, made, draw)
        return made

    def _image_splice(self, row: int, made: Made, draw: np.random.Generator) -> None:
        donor = self._donor(self.peers[self.split[row]], row, draw)
        found = spliced(made.image, self.image(donor), draw)
        if found is not None:
            made.image, made.box = found
            made.image_donor = donor
            made.types.append("image_splice")

    def _image_attribute(self, row: int, made: Made, draw: np.random.Generator) -> None:
        found = altered(made.image, draw)
        if found is not None:
            made.image, made.box = found
            made.types.append("image_attribute")

    def _text_swap(self, row: int, made: Made, draw: np.random.Generator) -> None:
        pool = [r for r in self.pools[row].tolist() if self.text(r) != made.text]
        if pool:
            made.text_donor = int(draw.choice(pool))
            made.text = self.text(made.text_donor)
            made.types.append("text_swap")

    def _text_attribute(self, row: int, made: Made, draw: np.random.Generator) -> None:
        donor = self._donor(self.peers[self.split[row]], row, draw)
        found = replaced(made.text, self.text(donor), draw)
        if found is not None:
            made.text, made.words = found
            made.text_donor = donor
            made.types.append("text_attribute")

    def _donor(self, rows: np.ndarray, row: int, draw: np.random.Generator) -> int:
        """Another row."""
        others = rows[rows != row]
        return int(others[draw.integers(len(others))])

    def image(self, row: int) -> Image.Image:
        """The image of a row, as a square."""
        column = self.dataset.modalities.index("image")
        item = int(self.dataset.links[row, column])
        return square(self.dataset.items["image"].load(item), self.how.size)

    def text(self, row: int) -> str:
        """The text of a row, cut."""
        column = self.dataset.modalities.index("text")
        whole = self.dataset.items["text"].describe(int(self.dataset.links[row, column]))
        return " ".join(whole.split()[: self.how.words])

    def line(self, row: int, image: str, made: Made) -> list[Any]:
        """The cells of a row of the table."""
        facts = self.dataset.facts
        group = facts["grouped"].values[row] if "grouped" in facts else -1
        flags = " ".join(str(int(k in made.words)) for k in range(len(made.text.split())))
        real = int(not made.types)
        box = "" if made.box is None else str(made.box)
        donors = [self._place(one) for one in (row, made.image_donor, made.text_donor)]
        kept = []
        for column in self.how.keep:
            fact = facts[f"kept {column}"]
            kept.append(fact.names[fact.values[row]] if fact.values[row] >= 0 else "")
        named = facts["grouped"].names[group] if group >= 0 else f"row {row}"
        kinds = ";".join(made.types) or REAL
        return [
            image, made.text, real, kinds, box, flags, self.split[row], named,
            *donors, *kept,
        ]  # fmt: skip

    def _place(self, row: int | None) -> str:
        """Where a row was read: `FILE:ROW`."""
        if row is None:
            return ""
        path, number = self.dataset.origin[row]
        return f"{Path(path).name}:{number}"


def _with_facts(data: DataConfig, facts: Mapping[str, str]) -> DataConfig:
    return replace(data, facts={**data.facts, **facts})
