"""Choosing pairs of a dataset, and writing them as a manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemix_core.config import RunConfig
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.writing import check_manifest_path, write_manifest
from fusemix_core.errors import ConfigError
from fusemix_core.registry import registry
from fusemix_core.runs.checks import trusted_rows
from fusemix_core.runs.config import build_config, chosen_by
from fusemix_core.runs.fitting import fit_encoders
from fusemix_core.runs.notices import Notices, Tell
from fusemix_core.runs.plan import EncoderPlan, check_choice, plan_encoders
from fusemix_core.runs.reading import read_usable
from fusemix_core.specs import EncoderSpec

if TYPE_CHECKING:
    from fusemix_core.interfaces import Encoder
    from fusemix_core.runs.inputs import DataInput, EncoderInput
    from fusemix_core.runs.reporter import Reporter


@dataclass
class Chosen:
    """`rows` of the dataset's links, int64, in the order chosen; the manifest `path`, if one was
    asked for, and whether paths in it leave its folder (`outside`); `warnings` of the encoding."""

    dataset: PairedDataset
    rows: np.ndarray
    path: Path | None = None
    outside: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def notices(self) -> Notices:
        """What a user should know of the data."""
        return Notices.of(self.dataset, self.warnings)


@dataclass
class SelectionPlan:
    """What is to be chosen: names resolved, data read, the store looked into. `encoders` are those
    of the modalities that the selector looks at."""

    config: RunConfig
    dataset: PairedDataset
    encoders: dict[str, EncoderPlan]
    out: Path | None = None
    objects: Mapping[str, Encoder] = field(default_factory=dict)


def select(
    encoders: Mapping[str, EncoderInput],
    data: DataInput,
    pairs: int,
    selector: str = "dpp",
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    reporter: Reporter | None = None,
    **settings: Any,
) -> Chosen:
    """Choose pairs of a dataset by a selector; what `fusemix select` does, from Python.

    Only modalities that the selector looks at are encoded. If the data name splits, the pairs are
    chosen among the training ones, and the others are written as they are.

    Args:
        encoders: modality → encoder, as `align` takes them.
        data: A path, the fields of `DataConfig`, a DataFrame, column → list, or a
            `datasets.Dataset`.
        pairs: How many to choose.
        selector: The name of a selector.
        overrides: `key=value` settings of the selector, such as `selector.by=text`.
        out: The manifest to write, `.csv`, `.tsv` or `.jsonl`, for `align` to read.
        reporter: Gets the progress.
        **settings: As `align` takes them; the views are those that `recipe` prefers.

    Raises:
        FusemixError: For anything that the caller can mend.

    Example:

        select({"image": "dinov2", "text": "minilm"}, "pairs.csv", 5000, out="subset.csv")
    """
    from fusemix_core.runs.inputs import data_table, encoder_names

    names, objects = encoder_names(encoders)
    values = {"encoders": names, "data": data_table(data), **settings}
    config, specs = selection_config(values, selector, pairs, overrides, out)
    plan = plan_selection(config, specs, out, objects, reporter.note if reporter else None)
    return run_selection(plan, reporter)


def selection_config(
    values: Mapping[str, Any],
    selector: str,
    pairs: int,
    overrides: Sequence[str],
    out: str | Path | None,
) -> tuple[RunConfig, dict[str, EncoderSpec]]:
    """The checked config of a selection, and its encoders. Imports nothing heavy."""
    for one in overrides:
        if not one.startswith("selector."):
            raise ConfigError(
                f"'{one}' is not a setting of a selector.", "Example: selector.by=text"
            )
    if out is not None:
        check_manifest_path(Path(out))
    data = {**values["data"], "validation_fraction": 0.0, "test_fraction": 0.0}
    return build_config({**values, "data": data}, [*chosen_by(selector, pairs), *overrides])


def plan_selection(
    config: RunConfig,
    specs: Mapping[str, EncoderSpec],
    out: str | Path | None = None,
    objects: Mapping[str, Encoder] | None = None,
    tell: Tell | None = None,
) -> SelectionPlan:
    """Read the data and look into the latent store; `tell` gets the notes on the data. Raises
    `DataError` for unusable data."""
    takes = {m: s.takes for m, s in specs.items()}
    dataset = read_usable(config.data, takes, config.seed, tell=tell)
    check_choice(config.recipe, dataset)

    rows = dataset.splits["train"]
    trusted = trusted_rows(config.recipe, dataset.facts, len(dataset))[rows]
    dataset = dataset.with_split("train", rows[trusted])
    looked_at = {m: specs[m] for m in modalities_of(config, dataset)}
    looked_at = fit_encoders(looked_at, dataset)
    encoders = plan_encoders(dataset, looked_at, config, config.device)
    return SelectionPlan(config, dataset, encoders, Path(out) if out else None, objects or {})


def modalities_of(config: RunConfig, dataset: PairedDataset) -> tuple[str, ...]:
    """The modalities whose latents the selector looks at."""
    part = config.recipe.selector
    assert part is not None  # `selection_config` sets it
    spec = registry.check("selector", part)
    if "latents" not in registry.uses("selector", part):
        return ()
    if "by" not in spec.options:
        return dataset.modalities
    return (part.options.get("by") or spec.options["by"] or dataset.modalities[0],)


def run_selection(plan: SelectionPlan, reporter: Reporter | None = None) -> Chosen:
    """Carry out the plan."""
    import torch

    from fusemix_core.devices import resolve_device
    from fusemix_core.interfaces import FitContext, PairedLatents
    from fusemix_core.runs.encode import Encoding, encode_dataset
    from fusemix_core.runs.reporter import Reporter
    from fusemix_core.runs.rows import check_latents
    from fusemix_core.runs.selection import choose

    config, reporter = plan.config, reporter or Reporter()
    selector, most = config.recipe.selector, config.recipe.pairs
    assert selector is not None and most is not None  # `selection_config` sets them
    how = Encoding(
        resolve_device(config.device),
        config.dtype,
        config.store_dtype,
        config.encode_batch,
        {m: e.view for m, e in plan.encoders.items()},
        config.backend,
        processes=config.decode_processes,
        store=config.store,
    )
    specs = {m: e.spec for m, e in plan.encoders.items()}
    objects = {m: e for m, e in plan.objects.items() if m in specs}
    reporter.stage("Encoding")
    encoded = encode_dataset(
        plan.dataset, specs, how, reporter, objects, max_bad=config.data.max_bad, ragged=()
    )
    dataset = encoded.dataset
    check_latents(dataset, encoded.tables)

    reporter.stage(f"Choosing pairs ({selector.name})")
    rows = dataset.splits["train"]
    columns = [dataset.modalities.index(m) for m in specs]
    pairs = PairedLatents(
        encoded.tables,
        torch.from_numpy(dataset.links[rows][:, columns]),
        {name: fact.select(rows) for name, fact in dataset.facts.items()},
    )
    context = FitContext(device=how.devices[0], seed=config.seed, callbacks=[reporter])
    k = min(most, len(rows))
    chosen = rows[choose(selector, pairs, k, context, reporter).numpy()]
    if plan.out is None:
        return Chosen(dataset, chosen, warnings=encoded.warnings)
    others = [dataset.splits[name] for name in dataset.splits if name != "train"]
    written = np.concatenate([chosen, *others])
    outside = write_manifest(plan.out, dataset, written, config.data)
    return Chosen(dataset, chosen, plan.out, outside, encoded.warnings)
