"""What a run will do, found from metadata only: names, data, what is cached."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from fusemix_core.config import ComputeDtype, DataConfig, FuseConfig, Recipe, RunConfig, to_dict
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.needs import check_needs
from fusemix_core.runs.checks import check_data
from fusemix_core.runs.cost import estimate_tokens, long_texts
from fusemix_core.runs.facts import check_facts, facts_table, unused_facts
from fusemix_core.runs.fitting import fit_encoders, learnt
from fusemix_core.runs.notices import Notices, Tell
from fusemix_core.runs.private import check_private, private_recipe
from fusemix_core.runs.rates import Rates, encode_rate_key, fit_rate_key
from fusemix_core.runs.reading import read_usable
from fusemix_core.specs import EncoderSpec, kind_of

if TYPE_CHECKING:
    from fusemix_core.fused import FusedModel
    from fusemix_core.rerank_config import RerankConfig
    from fusemix_core.runs.base import Base
    from fusemix_core.runs.encode import Encoding


@dataclass
class EncoderPlan:
    """One modality's part of the plan. `cached` is None where only loading the encoder can tell,
    `store_bytes` if nothing tells the shape of the view's latents. `tokens` is an estimate, for
    an encoder that has a price. `dtype` is what the encoder will compute in; `auto` if that is
    chosen with its first items. `learnt` is what a fitted encoder learnt, one line each."""

    modality: str
    spec: EncoderSpec
    view: str
    items: int
    cached: int | None
    store_bytes: int | None
    seconds: float | None
    tokens: int | None = None
    dtype: str = "float32"
    learnt: Sequence[str] = ()

    @property
    def cost(self) -> float | None:
        """US dollars for the `tokens` estimated, None where encoding costs nothing."""
        return None if self.tokens is None else self.tokens * self.spec.price / 1e6

    def as_dict(self) -> dict:
        """As plain data, for `--json`."""
        return {
            "modality": self.modality,
            "encoder": self.spec.name,
            "view": self.view,
            "dtype": self.dtype,
            "items": self.items,
            "cached": self.cached,
            "missing": None if self.cached is None else self.items - self.cached,
            "bytes": self.store_bytes,
            "seconds": self.seconds,
            "tokens": self.tokens,
            "cost": self.cost,
            "learnt": list(self.learnt),
        }


@dataclass
class Plan:
    """A run, resolved and ready: no configuration error can follow. `base` is what it starts from:
    nothing, or the model that it extends. `estimates` are warnings of what encoding will tell for
    sure. `private`: what is changed in the recipe for a private run."""

    config: RunConfig
    dataset: PairedDataset
    encoders: dict[str, EncoderPlan]
    base: Base
    fit_seconds: float | None = None
    warnings: list[str] = field(default_factory=list)
    estimates: list[str] = field(default_factory=list)
    private: list[str] = field(default_factory=list)

    @property
    def fixed(self) -> tuple[str, ...]:
        """The modalities of the data that stay as they are."""
        return self.base.fixed

    @property
    def added(self) -> tuple[str, ...]:
        """The modalities that join the model; none in a run of its own."""
        return self.base.added

    @property
    def specs(self) -> dict[str, EncoderSpec]:
        return {m: e.spec for m, e in self.encoders.items()}

    @property
    def views(self) -> dict[str, str]:
        return {m: e.view for m, e in self.encoders.items()}

    def as_dict(self) -> dict:
        """The plan as plain data, for `--json`."""
        return {
            "encoders": [e.as_dict() for e in self.encoders.values()],
            "pairs": {name: len(rows) for name, rows in self.dataset.splits.items()},
            "unpaired": {m: len(ids) for m, ids in self.dataset.unpaired.items()},
            "facts": facts_table(self.dataset.facts, self.config.data),
            "rejected": len(self.dataset.rejected),
            "recipe": to_dict(self.config.recipe),
            "fixed": list(self.fixed),
            "extends": self.config.extends,
            "device": self.config.device,
            "fit_seconds": self.fit_seconds,
            **Notices.of(self.dataset, [*self.private, *self.warnings, *self.estimates]).as_dict(),
        }


def declared_shape(spec: EncoderSpec, view: str) -> tuple[int, ...] | None:
    """The shape of an item's latent if the spec tells: of its first view, if that is pooled."""
    pooled = view == spec.views[0] and kind_of(view) == "pooled"
    return (spec.dim,) if pooled and spec.dim else None


def make_plan(
    config: RunConfig,
    specs: Mapping[str, EncoderSpec],
    model: FusedModel | None = None,
    tell: Tell | None = None,
) -> Plan:
    """Read the data and look into the latent store.

    Args:
        config: the run.
        specs: modality → encoder, of those that are given.
        model: what `config.extends` names, if it is loaded already. Modalities of the data that it
            has are encoded by its own encoders, at its own views and dtype.
        tell: gets notes on what became of the rows, which columns were read, and each warning.

    Raises:
        DataError: If the data can't be used, or leave nothing to fit or to choose on.
        ConfigError: If the recipe can't do what the run asks of it.
    """
    private: list[str] = []
    if config.private:
        recipe, private = private_recipe(config.recipe)
        config = replace(config, recipe=recipe)
    check_facts(config.recipe, config.data.facts)
    check_needs(config.recipe, specs, config.fixed or ((config.extends,) if config.extends else ()))
    if config.extends and model is None:
        from fusemix_core.runs.extension import extended_model

        model = extended_model(config, specs)
    if model is not None and config.private:
        check_private(model, f"The model {config.extends}")
    known = {} if model is None else {m: info.takes for m, info in model.encoders.items()}
    takes = known | {m: s.takes for m, s in specs.items() if m not in known}
    dataset = read_usable(config.data, takes, config.seed, tell=tell, optional=known)
    check_choice(config.recipe, dataset)
    measured: set[str] = set()
    if config.evaluators or config.recipe.evaluators:
        from fusemix_core.runs.evaluators import check_evaluators

        measured = check_evaluators(config, dataset)
    config = replace(config, data=with_columns(config.data, dataset))
    from fusemix_core.runs.baselines import check_baselines

    check_baselines(config, dataset)
    base, config, specs, views = _base(config, specs, model, dataset)
    check_data(dataset, config.recipe, base.fixed)
    specs = fit_encoders(specs, dataset)
    how = replace(config, views=views)
    encoders = plan_encoders(dataset, specs, how, config.device, base.dtypes())
    fit = Rates().seconds(
        fit_rate_key(config.recipe.name, config.device), len(dataset.splits["train"])
    )
    more, estimates = unused_facts(config, measured), long_texts(specs, dataset.items)
    if tell is not None:
        for warning in [*private, *more, *estimates]:
            tell(warning)
    warnings = dataset.warnings + more
    return Plan(config, dataset, encoders, base, fit, warnings, estimates, private)


def _base(
    config: RunConfig,
    specs: Mapping[str, EncoderSpec],
    model: FusedModel | None,
    dataset: PairedDataset,
) -> tuple[Base, RunConfig, Mapping[str, EncoderSpec], Mapping[str, str]]:
    """What the run starts from; the config, encoders and views that follow from it."""
    # These import torch: only now, when names, options and data are known to be good.
    if model is None:
        from fusemix_core.runs.base import Fresh

        return Fresh(fixed=config.fixed), config, specs, config.views
    from fusemix_core.runs.extension import Extension

    extension = Extension.of(model, specs, dataset.modalities)
    return extension, *extension.encoders(config, specs)


def with_columns(data: DataConfig, dataset: PairedDataset) -> DataConfig:
    """The config with the columns of a modality that takes what is left over, so that another
    job reads the same of other data."""
    found = {
        m: ",".join(dataset.columns[m])
        for m, items in dataset.items.items()
        if items.medium.leftover and m not in data.columns and dataset.columns.get(m)
    }
    return replace(data, columns={**data.columns, **found}, drop={}) if found else data


def check_choice(recipe: Recipe, dataset: PairedDataset) -> None:
    """Raise `ConfigError` if the recipe can't choose its pairs among the training ones."""
    count, selector = len(dataset.splits["train"]), recipe.selector
    if recipe.pairs is not None and recipe.pairs > count:
        raise ConfigError(
            f"{recipe.pairs:,} of {count:,} training pairs can't be chosen.",
            "Choose fewer (--pairs), or leave that out to fit on all.",
        )
    by = selector.options.get("by") if selector else None
    if by and by not in dataset.modalities:
        raise UnknownNameError.of("modality of this run", by, dataset.modalities)


def plan_encoders(
    dataset: PairedDataset,
    specs: Mapping[str, EncoderSpec],
    how: RunConfig | FuseConfig | RerankConfig | Encoding,
    device: str,
    dtypes: Mapping[str, ComputeDtype] = MappingProxyType({}),
) -> dict[str, EncoderPlan]:
    """What is to be encoded, modality by modality. Raises `ConfigError` where something is, and a
    variable that its encoder must find in the environment is not set. `dtypes` has what encoders
    compute in that is not as `how` says, by modality."""
    # The store imports torch: only now, when names, options and data are known to be good.
    from fusemix_core.devices import resolve_device
    from fusemix_core.latents import half
    from fusemix_core.latents.fingerprint import fingerprint
    from fusemix_core.latents.remote import store_at

    store = store_at(how.store)
    rates = Rates()
    kind = resolve_device().type if device == "auto" else device.partition(":")[0]
    encoders = {}
    for modality, spec in specs.items():
        items, view = dataset.items[modality], how.views.get(modality, spec.views[0])
        exact, dtype = fingerprint(spec, "float32"), dtypes.get(modality, how.dtype)
        dtype = half.planned(dtype, kind, store.home, exact, view)
        known = fingerprint(spec, dtype or next(iter(half.AGREEMENTS)))
        shape, missing = declared_shape(spec, view), np.ones(len(items), bool)
        if known is not None:
            missing = store.missing(known, view, items.keys, how.store_dtype)
            shape = shape or store.item_shape(known, view)
        count = int(missing.sum())
        if count:
            spec.check_environment()
        width = 2 if how.store_dtype == "float16" else 4
        encoders[modality] = EncoderPlan(
            modality,
            spec,
            view,
            len(items),
            None if known is None else len(items) - count,
            count * math.prod(shape) * width if shape else None,
            rates.seconds(encode_rate_key(known, device), count) if known else None,
            estimate_tokens(spec, items, np.flatnonzero(missing)),
            dtype or "auto",
            learnt(spec),
        )
    return encoders
