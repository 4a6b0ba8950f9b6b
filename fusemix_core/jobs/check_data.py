"""Looking over a data set before anything is encoded."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from fusemix_core.config import DataConfig
from fusemix_core.data.dataset import SPLITS, PairedDataset
from fusemix_core.data.items import Items
from fusemix_core.data.reading import read_pairs
from fusemix_core.data.references import SliceReference
from fusemix_core.data.suspects import suspicious_texts
from fusemix_core.errors import DataError, short
from fusemix_core.registry import registry
from fusemix_core.runs.checks import check_data as check_pairs
from fusemix_core.runs.cost import cut_texts
from fusemix_core.runs.notices import Notices
from fusemix_core.specs import EncoderSpec

SAMPLE = 1_000
"""Items of a modality that are decoded unless all are wanted."""
_THREADS = 4
_GUESSES = (("image", "text"), ("audio", "text"), ("image", "audio"), ("video", "text"))
_NAMED = re.compile(r"^\S+\.\w+( with \S+)?: ")
_VARIES = re.compile(r"(?<!\w)'[^']*'(?!\w)|\S*[/\\]\S*|\d[\d,.]*")


@dataclass(frozen=True)
class Finding:
    """`count` rows or items of a kind that a user may want to know of; `example` is one."""

    what: str
    modality: str
    count: int
    example: str


@dataclass(frozen=True)
class Unread:
    """Rows, entries or files that are not read for one reason; not `bad`: not counted as faults."""

    reason: str
    count: int
    bad: bool
    example: str


@dataclass
class DataCheck:
    """The findings in a data set.

    Attributes:
        notices: the fate of the rows, which columns were read, and warnings.
        items: modality → type (a suffix, or the medium) → split → how many different items; `all`
            counts each item once.
        pairs: split → how many pairs.
        unread: entries that are not read, by reason.
        overlaps: "train and test" → modality → how many items both splits have.
        findings: Repeats, suspicious texts, and what decoding showed.
        decoded: modality → how many items were decoded.
        problems: Why a run would fail; empty if it would not.
    """

    notices: Notices
    items: dict[str, dict[str, dict[str, int]]]
    pairs: dict[str, int]
    unread: list[Unread]
    overlaps: dict[str, dict[str, int]]
    findings: list[Finding]
    decoded: dict[str, int]
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The findings as plain data, for `--json`."""
        return {
            "pairs": self.pairs,
            "items": self.items,
            "unread": [vars(one) for one in self.unread],
            "overlaps": self.overlaps,
            "findings": [vars(one) for one in self.findings],
            "decoded": self.decoded,
            "problems": self.problems,
            **self.notices.as_dict(),
        }


def check_data(
    config: DataConfig,
    encoders: Mapping[str, EncoderSpec] | None = None,
    modalities: Sequence[str] = (),
    *,
    sample: int | None = SAMPLE,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> DataCheck:
    """Look over a data set; what `fusemix data check` does.

    Args:
        config: The data.
        encoders: modality → encoder; texts longer than one takes are counted.
        modalities: The modalities of the rows, if no encoders are given. Without either, whatever
            of image, text, audio and video they have.
        sample: How many items of a modality are decoded; None: all.
        seed: Of splits that are drawn, and of the sample.
        progress: Called with (modality, done, total) while items are decoded.

    Raises:
        DataError: If no row can be used.

    Example:
        check_data(DataConfig(("pairs.csv",))).problems
    """
    encoders = encoders or {}
    dataset = _read(config, encoders, modalities, seed)
    findings, decoded, left, shares = _repeats(dataset), {}, dataset, {}
    findings += [
        Finding(f"texts: {one.kind}", one.modality, one.count, one.example)
        for one in suspicious_texts(dataset.items, dataset.links)
    ]
    for modality, spec in encoders.items():
        findings += _too_long(dataset.items[modality], spec)
    for modality, items in dataset.items.items():
        if not items.medium.costly:
            continue
        index = _sampled(len(items), sample, seed)
        bad, blank = _decode(items, index, encoders.get(modality), progress)
        decoded[modality], shares[modality] = len(index), len(bad) / max(len(index), 1)
        left = left.without(modality, bad)
        findings += [
            Finding(f"{what} items", modality, len(at), short(items.describe(at[0])))
            for what, at in blank.items()
        ]
    return DataCheck(
        Notices.of(dataset),
        {m: _types(dataset, m) for m in dataset.modalities},
        {name: len(dataset.splits[name]) for name in SPLITS},
        _unread(left),
        _overlaps(dataset),
        findings,
        decoded,
        _problems(left, config.max_bad, shares, decoded),
    )


def _read(
    config: DataConfig, encoders: Mapping[str, EncoderSpec], modalities: Sequence[str], seed: int
) -> PairedDataset:
    """The dataset, with the modalities that were asked for or else those that it has."""
    if encoders:
        return read_pairs(config, {m: spec.takes for m, spec in encoders.items()}, seed)
    if modalities:
        return read_pairs(config, _takes(modalities), seed)
    named = tuple(config.columns)
    known = tuple(dict.fromkeys([*named, "image", "text", "audio", "video"]))
    first: DataError | None = None
    for guess in (known, *_GUESSES):
        if set(named) - set(guess):
            continue
        try:
            takes = _takes(guess)
            return read_pairs(config, takes, seed, optional=set(takes) - set(named))
        except DataError as error:
            first = first or error
    raise first or DataError("The columns are of modalities that don't go together.")


def _takes(modalities: Sequence[str]) -> dict[str, str]:
    """modality → its medium. Raises `UnknownNameError`."""
    takes = {}
    for name in modalities:
        declared = registry.modality(name)
        takes[name] = declared.medium if declared else registry.component("medium", name).name
    return takes


# -- what is there -------------------------------------------------------------------------------


def _types(dataset: PairedDataset, modality: str) -> dict[str, dict[str, int]]:
    """type → split → number of different items."""
    items, column = dataset.items[modality], dataset.modalities.index(modality)
    types = [_type(items, i) for i in range(len(items))]
    found: dict[str, dict[str, int]] = {}
    for name, count in sorted(Counter(types).items(), key=lambda one: -one[1]):
        found[name] = {"all": count} | dict.fromkeys(SPLITS, 0)
    for split in SPLITS:
        used = np.unique(dataset.links[dataset.splits[split], column])
        for i in used[used >= 0].tolist():
            found[types[i]][split] += 1
    return found


def _type(items: Items, i: int) -> str:
    """The kind of file of an item, by its name."""
    reference = items.references[i]
    if isinstance(reference, str):
        return items.takes
    name = reference.name if isinstance(reference, SliceReference) else items.describe(i)
    return os.path.splitext(name)[1].lower() or items.takes


def _unread(dataset: PairedDataset) -> list[Unread]:
    """What is not read, by reason: reasons that differ in names and numbers are one."""
    groups: dict[tuple[str, bool], list[str]] = {}
    for one in dataset.rejected:
        reason = _NAMED.sub("", one.reason)
        reason = f"{one.modality}: {reason}" if one.modality else reason
        key = _VARIES.sub("…", reason), one.bad
        groups.setdefault(key, []).append(f"{one.path}, row {one.row}: {one.reason}")
    found = [Unread(kind, len(all_), bad, all_[0]) for (kind, bad), all_ in groups.items()]
    return sorted(found, key=lambda one: (not one.bad, -one.count))


def _overlaps(dataset: PairedDataset) -> dict[str, dict[str, int]]:
    """Items that two splits have in common."""
    found: dict[str, dict[str, int]] = {}
    for one, other in combinations(SPLITS, 2):
        rows = [dataset.links[dataset.splits[name]] for name in (one, other)]
        for k, modality in enumerate(dataset.modalities):
            common = np.intersect1d(rows[0][:, k], rows[1][:, k])
            if count := int((common >= 0).sum()):
                found.setdefault(f"{one} and {other}", {})[modality] = count
    return found


def _repeats(dataset: PairedDataset) -> list[Finding]:
    """Rows that repeat others, and items that several files or cells contain."""
    count = dataset.counts["repeated"]
    found = [Finding("rows that repeat others", "", count, "")] if count else []
    return found + [
        Finding("items with the content of another", modality, merged, "")
        for modality, merged in dataset.merged.items()
        if merged and modality in dataset.items
    ]


def _too_long(items: Items, spec: EncoderSpec) -> list[Finding]:
    """Texts that an encoder will probably cut."""
    texts = cut_texts(spec, items)
    what = f"texts that {spec.name} probably cuts"
    return [Finding(what, items.modality, len(texts), short(texts[0], 60))] if texts else []


# -- decoding ------------------------------------------------------------------------------------


def _sampled(count: int, sample: int | None, seed: int) -> np.ndarray:
    """Sorted indices of the items to decode."""
    if sample is None or count <= sample:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, sample, replace=False))


def _decode(
    items: Items,
    index: np.ndarray,
    spec: EncoderSpec | None,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[dict[int, str], dict[str, list[int]]]:
    """(item → why it can't be decoded; what is wrong with those that can → items)."""
    bad: dict[int, str] = {}
    blank: dict[str, list[int]] = {}

    def look(i: int) -> tuple[int, str, str]:
        try:
            item = items.load(i, spec.sample_rate if spec else None)
            return i, "", items.medium.blank(item)
        except DataError as error:
            return i, error.reason, ""

    with ThreadPoolExecutor(_THREADS, "fusemix-check") as threads:
        for done, (i, why, what) in enumerate(threads.map(look, index.tolist()), start=1):
            if why:
                bad[i] = why
            elif what:
                blank.setdefault(what, []).append(i)
            if progress:
                progress(items.modality, done, len(index))
    return bad, blank


# -- whether a run would fail --------------------------------------------------------------------


def _problems(
    dataset: PairedDataset,
    max_bad: float,
    shares: Mapping[str, float],
    decoded: Mapping[str, int],
) -> list[str]:
    """Why a run would fail on the dataset, which is without the items that can't be decoded."""
    found = []
    try:
        dataset.check_bad(max_bad)
    except DataError as error:
        found.append(f"{error.message}\n{error.hint}".strip())
    for modality, share in shares.items():
        whole = decoded[modality] == len(dataset.items[modality])
        if share > max_bad and not whole and not found:
            found.append(
                f"{share:.1%} of {decoded[modality]:,} {modality} items that were tried can't be "
                f"decoded; the limit is {max_bad:.1%} of the rows (--max-bad)."
            )
    try:
        check_pairs(dataset)
    except DataError as error:
        found.append(f"{error.message}\n{error.hint}".strip())
    return found
