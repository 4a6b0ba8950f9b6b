"""What a run will do, found from metadata alone: names, data, what is cached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fusemix_core.config import RunConfig, to_dict
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.reading import read_pairs
from fusemix_core.flow.rates import Rates, encode_rate_key, fit_rate_key
from fusemix_core.specs import EncoderSpec


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
