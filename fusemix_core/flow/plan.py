"""What a run will do, found from metadata alone: names, data, what is cached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fusemix_core.config import Recipe, RunConfig, from_dict, override_recipe, to_dict
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.reading import read_pairs
from fusemix_core.errors import ConfigError
from fusemix_core.flow.rates import Rates, encode_rate_key, fit_rate_key
from fusemix_core.registry import Registry, registry
from fusemix_core.specs import EncoderSpec

PARTS = ("aligner", "adapter", "mixup", "objective", "scorer")


def find_recipe(
    given: str | Mapping | Recipe, overrides: list[str] = (), registry: Registry = registry
) -> Recipe:
    """The recipe of a registered name, of a table `{name, …overrides}`, or as given, checked.

    Raises `UnknownNameError` or `ConfigError` for anything in it that can't be used.
    """
    if isinstance(given, str):
        given = {"name": given}
    if isinstance(given, Mapping):
        if not isinstance(given.get("name"), str):
            raise ConfigError("The recipe has no name.", 'Example: recipe = "fusemix"')
        spec = registry.component("recipe", given["name"])
        base = to_dict(registry.target_of(spec)())
        given = from_dict(Recipe, _merged(base, dict(given)), "recipe.")
    recipe = override_recipe(given, list(overrides))
    for kind in PARTS:
        part = getattr(recipe, kind)
        if part is not None:
            registry.check(kind, part)
    if recipe.start is not None:
        registry.check("aligner", recipe.start)
    return recipe


def _merged(base: dict, over: Mapping) -> dict:
    """`base` with the values of `over`, tables merged; a part of another name starts afresh."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        if isinstance(value, str) and isinstance(old, dict):
            value = {"name": value}
        if isinstance(value, Mapping) and isinstance(old, dict):
            same = value.get("name", old.get("name")) == old.get("name")
            out[key] = _merged(old, value) if same else dict(value)
        else:
            out[key] = value
    return out


@dataclass
class EncoderPlan:
    """One modality's part of the plan. `cached` is None where only loading the encoder can tell."""

    modality: str
    spec: EncoderSpec
    items: int
    cached: int | None
    store_bytes: int | None
    seconds: float | None


@dataclass
class Plan:
    """A run, resolved and ready: no configuration error can follow."""

    config: RunConfig
    dataset: PairedDataset
    encoders: dict[str, EncoderPlan]
    fit_seconds: float | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def specs(self) -> dict[str, EncoderSpec]:
        return {m: e.spec for m, e in self.encoders.items()}

    def as_dict(self) -> dict:
        """The plan as plain data, for `--json`."""
        return {
            "encoders": [
                {
                    "modality": e.modality,
                    "encoder": e.spec.name,
                    "items": e.items,
                    "cached": e.cached,
                    "missing": None if e.cached is None else e.items - e.cached,
                    "bytes": e.store_bytes,
                    "seconds": e.seconds,
                }
                for e in self.encoders.values()
            ],
            "pairs": {name: len(rows) for name, rows in self.dataset.splits.items()},
            "rejected": len(self.dataset.rejected),
            "recipe": to_dict(self.config.recipe),
            "device": self.config.device,
            "fit_seconds": self.fit_seconds,
            "warnings": self.warnings,
        }


def resolve_encoders(
    names: Mapping[str, str], registry: Registry = registry
) -> dict[str, EncoderSpec]:
    """modality → spec; raises for an unknown name or a package that is not installed."""
    specs = {}
    for modality, name in names.items():
        specs[modality] = registry.encoder(name)
        specs[modality].check_requirements()
    return specs


def make_plan(config: RunConfig, specs: Mapping[str, EncoderSpec]) -> Plan:
    """Read the data and look into the latent store. Raises `DataError` for unusable data."""
    dataset = read_pairs(config.data, {m: s.takes for m, s in specs.items()}, config.seed)
    dataset.check_bad(config.data.max_bad)

    # The store imports torch: only now, when names, options and data are known to be good.
    from fusemix_core.latents.fingerprint import fingerprint
    from fusemix_core.latents.store import LatentStore

    store = LatentStore()
    rates = Rates()
    encoders = {}
    for modality, spec in specs.items():
        items = dataset.items[modality]
        known = fingerprint(spec, config.dtype)
        cached = None
        if known is not None:
            missing_mask = store.missing(known, spec.views[0], items.keys, config.store_dtype)
            cached = int(len(items) - missing_mask.sum())
        missing = len(items) - (cached or 0)
        width = 2 if config.store_dtype == "float16" else 4
        encoders[modality] = EncoderPlan(
            modality,
            spec,
            len(items),
            cached,
            missing * spec.dim * width if spec.dim else None,
            rates.seconds(encode_rate_key(known, config.device), missing) if known else None,
        )
    fit = rates.seconds(
        fit_rate_key(config.recipe.name, config.device), len(dataset.splits["train"])
    )
    return Plan(config, dataset, encoders, fit, list(dataset.warnings))


def build_config(
    values: Mapping, overrides: list[str] = (), registry: Registry = registry
) -> tuple[RunConfig, dict[str, EncoderSpec]]:
    """A checked `RunConfig` and its encoders, from the tables of a TOML file or of options.

    `recipe` may be a name or a table; `overrides` are `key=value` settings of the recipe.
    """
    values = dict(values)
    recipe = find_recipe(values.pop("recipe", "fusemix"), overrides, registry)
    encoders = values.get("encoders")
    if not isinstance(encoders, Mapping) or len(encoders) < 2:
        raise ConfigError(
            "A run needs two encoders or more.",
            "Example: fusemix align --a efficientnet-lite0 --b minilm --data pairs.csv",
        )
    config = from_dict(RunConfig, {**values, "recipe": to_dict(recipe)})
    if not config.data.source:
        raise ConfigError("No data given.", "Add --data PATH; `fusemix align --help` lists forms.")
    return config, resolve_encoders(config.encoders, registry)
