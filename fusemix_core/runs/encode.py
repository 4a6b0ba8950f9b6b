"""From a dataset to latents: each modality extracted in turn, bad items set aside."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from fusemix_core.data.dataset import PairedDataset, Rejected
from fusemix_core.devices import devices_like
from fusemix_core.interfaces import Encoder, LatentTable, PairedLatents
from fusemix_core.latents.encoding import Encoding
from fusemix_core.latents.extraction import Extraction, extract
from fusemix_core.latents.remote import store_at
from fusemix_core.latents.tables import RaggedLatents, StoredLatents
from fusemix_core.runs.rates import Rates, encode_rate_key
from fusemix_core.runs.reporter import Reporter
from fusemix_core.specs import EncoderSpec, kind_of


@dataclass(frozen=True)
class Encoded:
    """A dataset without its bad items, the latents of the rest, how each was extracted, and what to
    tell the user of it."""

    dataset: PairedDataset
    tables: dict[str, LatentTable]
    extractions: dict[str, Extraction]
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, dataset: PairedDataset, extractions: Mapping[str, Extraction]) -> Encoded:
        """`dataset` without what the extractions, by modality, found bad."""
        before = len(dataset.rejected)
        for modality, done in extractions.items():
            dataset = dataset.without(modality, done.bad)
        tables = {m: in_memory_if_it_fits(e.table) for m, e in extractions.items()}
        warnings = [warning for done in extractions.values() for warning in done.warnings]
        if lost := dataset.rejected[before:]:
            warnings.append(_lost(lost))
        return cls(dataset, tables, dict(extractions), list(dict.fromkeys(warnings)))

    @property
    def digest(self) -> str:
        """Of what the latents are of: the items' contents, the encoders, the views' shapes."""
        digest = hashlib.sha256()
        for modality, done in self.extractions.items():
            shape = getattr(done.table, "shape", ())
            shape = shape[-1:] if isinstance(done.table, RaggedLatents) else shape
            digest.update(f"{modality} {done.fingerprint} {shape}\0".encode())
            digest.update(self.dataset.items[modality].keys.tobytes())
        return digest.hexdigest()

    def paired(self, split: str | None = None) -> PairedLatents:
        """The latents and links of one split, or of all rows."""
        return paired(self.dataset, self.tables, split)


def _lost(rejected: Sequence[Rejected]) -> str:
    """What to tell of entries that turned out bad when they were encoded."""
    first = rejected[0]
    such_as = "" if len(rejected) == 1 else "such as "
    return (
        f"Entries that can't be encoded are left out ({len(rejected):,}): {such_as}{first.path}, "
        f"row {first.row}: {first.modality}: {first.reason}"
    )


def paired(
    dataset: PairedDataset, tables: Mapping[str, LatentTable], split: str | None = None
) -> PairedLatents:
    """Latents by modality with the links of one split of a dataset, or of all rows; the training
    split has the unpaired items too."""
    pairs = PairedLatents(dict(tables), torch.from_numpy(dataset.links), dict(dataset.facts))
    if split is None:
        return pairs
    if split == "train":
        pairs.unpaired = {m: torch.from_numpy(ids) for m, ids in dataset.unpaired.items()}
    return pairs.select(torch.from_numpy(dataset.splits[split]))


def encode_dataset(
    dataset: PairedDataset,
    specs: Mapping[str, EncoderSpec],
    how: Encoding,
    reporter: Reporter,
    objects: Mapping[str, Encoder] | None = None,
    *,
    max_bad: float,
    rejected: Callable[[PairedDataset], None] | None = None,
    ragged: Collection[str] | None = None,
) -> Encoded:
    """Fill the latent store for a dataset, one encoder at a time, and open it.

    Args:
        dataset: whose items are encoded.
        specs: modality → encoder.
        how: how items are encoded.
        reporter: gets the progress and of warnings.
        objects: modality → loaded encoder, in place of what the spec would load.
        max_bad: the share of rows that may be bad, counting those that the encoders can't use.
        rejected: called with the dataset without its bad items, before these are counted.
        ragged: the modalities whose items may differ in length, by default all.

    Raises:
        DataError: If more rows are bad.
        ConfigError: If items differ in length, in a modality where they may not.
    """
    views = {m: how.views.get(m, spec.views[0]) for m, spec in specs.items()}
    devices = devices_like(how.devices[0])
    extractions: dict[str, Extraction] = {}
    reported: set[str] = set()
    # What may prove to be no rows for a fit goes first, not after hours of another encoder.
    for modality in sorted(specs, key=lambda m: kind_of(views[m]) not in ("tokens", "time")):
        spec = specs[modality]
        began = time.monotonic()
        done = extract(
            spec,
            dataset.items[modality],
            store_at(how.store),
            replace(how, device=devices, dtype=how.dtypes.get(modality, how.dtype)),
            view=views[modality],
            ragged=ragged is None or modality in ragged,
            progress=lambda n, total, name=spec.name: reporter.encoding(name, n, total),
            encoder=(objects or {}).get(modality),
        )
        extractions[modality] = done
        for warning in done.warnings:
            if warning not in reported:
                reporter.note(warning)
        reported.update(done.warnings)
        key = encode_rate_key(done.fingerprint, devices[0].type)
        Rates().record(key, done.encoded, time.monotonic() - began)
    encoded = Encoded.of(dataset, {m: extractions[m] for m in specs})
    for warning in encoded.warnings:
        if warning not in reported:
            reporter.note(warning)
    if rejected is not None:
        rejected(encoded.dataset)
    encoded.dataset.check_bad(max_bad)
    return encoded


def in_memory_if_it_fits(table: StoredLatents | RaggedLatents) -> LatentTable:
    """The table in memory if it takes a quarter of what is free or less, else as it is."""
    return table.load() if table.nbytes < memory_free() // 4 else table


def memory_free() -> int:
    """Bytes of main memory that are available, or 4 GB if the system does not say.

    A container's own limit counts, too.
    """
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":") for line in file)
        return min(int(fields["MemAvailable"].split()[0]) * 1024, *_group_limits())
    except (OSError, KeyError):
        return 4 << 30


def _group_limits(groups: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """The memory limits of the process's control groups (version 1 and 2); at least one number."""
    limits = [1 << 62]
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = groups / controllers, "memory.limit_in_bytes" if controllers else "memory.max"
        for folder in (root / own.lstrip("/"), root):  # inside a container its own is the root
            with contextlib.suppress(OSError, ValueError):  # "max" is no number
                limits.append(int((folder / name).read_text()))
    return limits
