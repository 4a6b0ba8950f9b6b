"""The cached latents that every method of a benchmark is given: splits, sizes, classes to name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from fusemix_core.benchmark.config import Combination, LabelledSet, PairedSet
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.facts import TRUST
from fusemix_core.data.hashes import text_keys
from fusemix_core.data.items import Items, Origin
from fusemix_core.data.media import medium
from fusemix_core.engine.randomness import stream
from fusemix_core.errors import ConfigError
from fusemix_core.evaluation.zeroshot import default_templates, prompts
from fusemix_core.interfaces import Encoder, Padded, PairedLatents
from fusemix_core.latents.extraction import extract
from fusemix_core.latents.remote import store_at
from fusemix_core.runs.checks import check_data
from fusemix_core.runs.encode import Encoding, encode_dataset
from fusemix_core.runs.fitting import fit_encoders
from fusemix_core.runs.labelled import read_labelled
from fusemix_core.runs.notices import Tell
from fusemix_core.runs.reading import read_usable
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.rows import check_latents, check_splits

Splits = Mapping[str, PairedLatents]


@dataclass(frozen=True)
class Classes:
    """Latents of labelled items and of the prompts of their classes.

    items: of n items, as their table has them; labels int64 `[n]`; prompts: of `[classes ·
    templates]` texts, class by class.
    """

    modality: str
    text: str
    names: Sequence[str]
    templates: Sequence[str]
    items: Tensor | Padded
    labels: Tensor
    prompts: Tensor | Padded


@dataclass(frozen=True)
class Case:
    """The latents of one set, combination of encoders and seed. `digest` is of their content,
    `test_digest` of the items and links of the test split only."""

    splits: Splits
    zero_shot: Mapping[str, Classes]
    digest: str
    test_digest: str


def make_case(
    paired: PairedSet,
    chosen: Combination,
    seed: int,
    device: torch.device,
    reporter: Reporter,
    objects: Mapping[str, Encoder] = MappingProxyType({}),
) -> Case:
    """The set split by the seed and encoded; what the store contains is not encoded again. objects:
    encoders that are loaded already, by name."""
    how = Encoding(device, views=chosen.views)
    dataset = read_set(paired, chosen, seed, reporter.note)
    loaded = {m: objects[s.name] for m, s in chosen.specs.items() if s.name in objects}
    most = paired.data.max_bad
    chosen = replace(chosen, specs=fit_encoders(chosen.specs, dataset))
    encoded = encode_dataset(dataset, chosen.specs, how, reporter, loaded, max_bad=most)
    splits = {name: encoded.paired(name) for name in encoded.dataset.splits}
    check_splits(splits["train"], splits["validation"])
    _check_test(paired, splits["test"])
    check_latents(encoded.dataset, encoded.tables)
    prints = [e.fingerprint for e in encoded.extractions.values()]
    zero_shot = {
        name: _classes(labelled, chosen, how, reporter)
        for name, labelled in paired.zero_shot.items()
    }
    keys = [i.keys for i in encoded.dataset.items.values()]
    parts = [encoded.dataset.links, *encoded.dataset.splits.values()]
    facts = encoded.dataset.facts
    parts += [fact.values for fact in facts.values()]
    named = {name: [f.kind, f.names] for name, f in facts.items() if name != TRUST}
    test = encoded.dataset.links[encoded.dataset.splits["test"]]
    return Case(
        splits,
        zero_shot,
        digest_of([list(chosen.views.items()), prints, *([named] if named else [])], keys + parts),
        digest_of([], [*keys, test]),
    )


def read_set(
    paired: PairedSet, chosen: Combination, seed: int, tell: Tell | None = None
) -> PairedDataset:
    """The data of a set split by the seed. Raises `DataError` or `ConfigError` if they can't be
    benchmarked, whatever the latents are."""
    takes = {m: s.takes for m, s in chosen.specs.items()}
    dataset = read_usable(paired.data, takes, seed, tell=tell)
    check_data(dataset)
    _check_test(paired, dataset.splits["test"])
    return dataset


def _check_test(paired: PairedSet, test: Sized) -> None:
    if not len(test):
        raise ConfigError(
            f"The set '{paired.name}' has no test split.", "Set test_fraction above 0."
        )


def sized(
    splits: Splits,
    size: int | None,
    seed: int,
    chosen: Callable[[int], Tensor] | None = None,
    *,
    whole_validation: bool = False,
) -> Splits:
    """`size` of the training and validation rows, in the split's own proportion; with
    `whole_validation` as many training rows, and all validation rows.

    The test rows are those of the whole set whatever the size, so that recall from few pairs is
    measured as finely as recall from all. Of training rows those that `chosen` gives for their
    number, else random ones.
    """
    train, validation = len(splits["train"]), len(splits["validation"])
    if size is None or size >= train + (0 if whole_validation else validation):
        return splits
    counts = {"train": size}
    if not whole_validation:
        held = min(max(round(size * validation / (train + validation)), 2), size - 2)
        counts = {"train": size - held, "validation": held}
    generator = torch.Generator().manual_seed(seed)
    parts = dict(splits)
    for name, count in counts.items():
        rows = torch.randperm(len(splits[name]), generator=generator)[:count]
        if name == "train" and chosen is not None:
            rows = chosen(count)
        parts[name] = splits[name].select(rows)
    return parts


def with_wrong(splits: Splits, share: float, seed: int) -> Splits:
    """The splits with a random share of the training rows whose last modality's items are
    exchanged, so that each has another row's."""
    train = splits["train"]
    rows = torch.randperm(len(train), generator=stream(seed, "wrong pairs"))
    rows = rows[: round(share * len(train))]
    if len(rows) < 2:
        return splits
    links = train.links.clone()
    links[rows, -1] = train.links[rows.roll(1), -1]
    return {**splits, "train": replace(train, links=links)}


def _classes(
    labelled: LabelledSet, chosen: Combination, how: Encoding, reporter: Reporter
) -> Classes:
    modality = labelled.modality
    others = {m: medium(spec.takes) for m, spec in chosen.specs.items() if m != modality}
    text = next((m for m, how in others.items() if how.language), None)
    if text is None or modality not in chosen.specs:
        raise ConfigError(
            f"{chosen.label} can't classify the modality '{modality}' by text.",
            "Zero-shot classification needs an encoder of it, and one of text.",
        )
    takes = {modality: chosen.specs[modality].takes, text: "text"}
    found = read_labelled(
        labelled.data,
        modality,
        text,
        takes,
        labelled.label_column,
        labelled.split,
        tell=reporter.note,
    )
    names = found.names()
    labels = found.labels(names)
    encoded = encode_dataset(
        found.dataset,
        {modality: chosen.specs[modality]},
        how,
        reporter,
        max_bad=labelled.data.max_bad,
    )
    pairs = encoded.paired()
    ids = pairs.linked(modality)
    templates = default_templates(modality)
    return Classes(
        modality,
        text,
        names,
        templates,
        pairs.tables[modality].rows(ids),
        torch.tensor([labels[int(i)] for i in ids]),
        _text_latents(text, prompts(names, templates), chosen, how),
    )


def _text_latents(
    text: str, texts: list[str], chosen: Combination, how: Encoding
) -> Tensor | Padded:
    """Latents of texts, through the store."""
    unique = list(dict.fromkeys(texts))
    origin = Origin(("prompts",), np.zeros(len(unique), np.int32), np.arange(1, len(unique) + 1))
    items = Items(text, "text", unique, text_keys(unique), origin)
    done = extract(
        chosen.specs[text],
        items,
        store_at(),
        Encoding(how.device, how.dtype, how.store_dtype),
        view=chosen.views[text],
    )
    number = {t: i for i, t in enumerate(unique)}
    return done.table.rows(torch.tensor([number[t] for t in texts]))


def rows_digest(
    dataset: PairedDataset, more: Mapping[str, np.ndarray] = MappingProxyType({})
) -> str:
    """Of which rows are where, what they are linked to, and their facts.

    Args:
        dataset: the data.
        more: name → further arrays.
    """
    digest = hashlib.sha256()
    arrays = {"links": dataset.links, **more, **dataset.splits}
    arrays |= {f"fact {name}": fact.values for name, fact in dataset.facts.items()}
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}\0".encode())
        whole = array.dtype.kind == "O"
        digest.update(repr(array.tolist()).encode() if whole else array.tobytes())
    for name, fact in dataset.facts.items():
        digest.update(f"{name} {fact.kind} {fact.names}\0".encode())
    return digest.hexdigest()


def digest_of(facts: object, arrays: Sequence[np.ndarray]) -> str:
    """Of plain data and arrays."""
    digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16)
    for array in arrays:
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
