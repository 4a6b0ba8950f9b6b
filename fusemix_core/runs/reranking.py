"""The plan of `fusemix rerank`: which data, which tokens, which networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemix_core.config import Part, to_dict
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.media import medium
from fusemix_core.errors import ConfigError, DataError, UnknownNameError
from fusemix_core.interfaces import Reranker
from fusemix_core.registry import Registry, registry
from fusemix_core.rerank_config import AUTO, RerankConfig
from fusemix_core.runs.config import resolve_encoders, resolve_views
from fusemix_core.runs.notices import Notices, Tell
from fusemix_core.runs.plan import EncoderPlan, plan_encoders
from fusemix_core.runs.reading import read_usable
from fusemix_core.runs.seen import TrainedOn
from fusemix_core.specs import EncoderSpec, kind_of

if TYPE_CHECKING:
    from fusemix_core.fused import FusedModel

KIND = "reranker"
LAYERED = "layers"
"""What the variant of a view begins with whose tokens have several layers side by side, such as
`tokens-layers`."""
_PREFERRED = ("tokens", "grid", "time", "layers", "pooled")
"""Kinds of views, the first one liked most."""


@dataclass
class RerankPlan:
    """A run of `fusemix rerank`, resolved and ready. `dataset` has the two modalities, `networks`
    are those to fit, by name."""

    config: RerankConfig
    dataset: PairedDataset
    encoders: dict[str, EncoderPlan]
    networks: dict[str, Part]
    warnings: list[str] = field(default_factory=list)

    @property
    def specs(self) -> dict[str, EncoderSpec]:
        """modality → the encoder of its tokens."""
        return {m: e.spec for m, e in self.encoders.items()}

    @property
    def views(self) -> dict[str, str]:
        """modality → the view that has its tokens."""
        return {m: e.view for m, e in self.encoders.items()}

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data, for `--json`."""
        return {
            "model": self.config.model,
            "encoders": [e.as_dict() for e in self.encoders.values()],
            "networks": {name: to_dict(part) for name, part in self.networks.items()},
            "settings": to_dict(self.config.settings),
            "splits": {name: len(rows) for name, rows in self.dataset.splits.items()},
            "rejected": len(self.dataset.rejected),
            "device": self.config.device,
            **Notices.of(self.dataset, self.warnings).as_dict(),
        }


def make_rerank_plan(
    config: RerankConfig,
    model: FusedModel,
    notify: Tell | None = None,
    registry: Registry = registry,
) -> RerankPlan:
    """Read the data, choose views and networks, and look into the latent store.

    Args:
        config: the run.
        model: what `config.model` names.
        notify: gets notes on the data.

    Raises:
        ConfigError, UnknownNameError: a name or an option is wrong.
        DataError: the data can't be used, or have no validation pairs.
    """
    networks = networks_of(config.network, registry)
    takes = {m: info.takes for m, info in model.encoders.items()}
    config, specs = resolve_tokens(config, takes, lambda m: model.encoder(m).spec, registry)
    # All modalities of the run: what is linked by a third one is on one side of the split.
    seed = config.seed if config.split_seed is None else config.split_seed
    whole = read_usable(config.data, takes, seed, tell=notify, optional=takes)
    plan = rerank_plan(config, specs, whole, networks)
    leaks = _trained_on(model, plan.dataset)
    plan.warnings += leaks
    if notify is not None:
        for warning in leaks:
            notify(warning)
    return plan


def _trained_on(model: FusedModel, dataset: PairedDataset) -> list[str]:
    """A warning if the model was trained on rows that the re-ranker is measured on."""
    splits = dataset.splits
    seen = TrainedOn.count(model, dataset, splits["test" if len(splits["test"]) else "validation"])
    return [] if seen is None else seen.warnings()


def resolve_tokens(
    config: RerankConfig,
    takes: Mapping[str, str],
    own: Callable[[str], EncoderSpec],
    registry: Registry = registry,
) -> tuple[RerankConfig, dict[str, EncoderSpec]]:
    """The config with its two modalities and their views, and modality → the encoder of its tokens.

    Args:
        config: the run.
        takes: modality of the model → the medium of its items.
        own: gives the model's encoder of a modality.

    Raises:
        ConfigError, UnknownNameError: a name is wrong, or an encoder has no tokens.
    """
    between = config.between or tuple(takes)[:2]
    for modality in (*between, *config.encoders, *config.views):
        if modality not in takes:
            raise UnknownNameError.of("modality of the model", modality, takes)
    between = tuple(m for m in takes if m in between)
    if len(between) != 2:
        raise ConfigError(
            f"A re-ranker is for two modalities, not {', '.join(between) or 'none'}.",
            f"Example: --between {','.join(tuple(takes)[:2])}",
        )
    given = resolve_encoders(config.encoders, registry)
    specs = {m: given.get(m) or own(m) for m in between}
    if other := [m for m, s in given.items() if s.takes != takes[m]]:
        raise ConfigError(
            f"The encoder '{given[other[0]].name}' takes {given[other[0]].takes}, and the model's "
            f"{other[0]} items are {takes[other[0]]}.",
            f"Name another encoder for the tokens of {other[0]}.",
        )
    for modality, spec in specs.items():
        if modality not in config.views:
            _check_tokens(modality, spec, registry)
    views = resolve_views(specs, config.views, {m: default_view(s) for m, s in specs.items()})
    return replace(config, between=between, views=views), specs


def _check_tokens(modality: str, spec: EncoderSpec, registry: Registry) -> None:
    """Raise `ConfigError` if an encoder gives one vector per item and nothing else."""
    if _gives_tokens(spec):
        return
    found = [one for _, one in registry.all_encoders() if isinstance(one, EncoderSpec)]
    others = [one.name for one in found if one.takes == spec.takes and _gives_tokens(one)]
    such = f"Name another encoder for the tokens, such as {modality}={' or '.join(others[:3])}. "
    raise ConfigError(
        f"The encoder '{spec.name}' of {modality} has no tokens; its views: "
        f"{', '.join(spec.views)}.",
        such * bool(others)
        + f"To use its vector as the only token, name the view: {modality}={spec.views[0]}.",
    )


def rerank_plan(
    config: RerankConfig,
    specs: Mapping[str, EncoderSpec],
    dataset: PairedDataset,
    networks: Mapping[str, Part],
) -> RerankPlan:
    """The plan of a config that `resolve_tokens` gave, for data that were read.

    Raises:
        DataError: the data have no training or no validation pairs of the two modalities.
    """
    warnings, dataset = list(dataset.warnings), _between(dataset, config.between)
    encoders = plan_encoders(dataset, specs, config, config.device)
    return RerankPlan(config, dataset, encoders, dict(networks), warnings)


def _between(dataset: PairedDataset, between: tuple[str, ...]) -> PairedDataset:
    """The dataset with two modalities and the rows that have both."""
    for modality in between:
        if modality not in dataset.modalities:
            raise DataError(
                f"The data have no items of the modality '{modality}'.",
                "Name the column: --column MODALITY=COLUMN",
            )
    dataset = dataset.leaving_out([m for m in dataset.modalities if m not in between])
    columns = [dataset.modalities.index(m) for m in between]
    both = np.all(dataset.links[:, columns] >= 0, axis=1)
    splits = {name: rows[both[rows]] for name, rows in dataset.splits.items()}
    for name in ("train", "validation"):
        if not len(splits[name]):
            raise DataError(
                f"The {name} split has no row with both {' and '.join(between)}.",
                "A re-ranker needs pairs to train on, and others to choose on: give more rows.",
            )
    return replace(dataset, splits=splits)


def networks_of(part: Part, registry: Registry = registry) -> dict[str, Part]:
    """The networks to fit, by name. `auto` is those that score a batch at once, which train in
    minutes. If it has options, it is those that have them, whatever they cost.

    Raises:
        ConfigError, UnknownNameError: no network has that name, or those options.
    """
    if part.name != AUTO:
        registry.check(KIND, part)
        return {part.name: part}
    found = {
        spec.name: Part(spec.name, part.options)
        for _, spec in registry.all_components(KIND)
        if set(part.options) <= set(spec.options)
    }
    if not found:
        raise ConfigError(
            f"No registered re-ranker has the options {', '.join(part.options)}.",
            "Those that are, and their options: fusemix recipes components --kind reranker",
        )
    for one in found.values():
        registry.check(KIND, one)
    quick = {name: one for name, one in found.items() if _at_once(name, registry)}
    return found if part.options or not quick else quick


def _at_once(name: str, registry: Registry) -> bool:
    """Whether a network scores a batch faster than pair by pair."""
    target = registry.target_of(registry.component(KIND, name))
    return target.table is not Reranker.table


def default_view(spec: EncoderSpec) -> str:
    """The view of an encoder that has its tokens, of several layers if there is one."""

    def liked(view: str) -> tuple[int, bool]:
        kind = kind_of(view)
        return (_PREFERRED.index(kind), not is_layered(view))

    return min(spec.views, key=liked)


def _gives_tokens(spec: EncoderSpec) -> bool:
    return kind_of(default_view(spec)) != "pooled"


def is_layered(view: str) -> bool:
    """Whether a view's tokens have several layers side by side."""
    kind = kind_of(view)
    return kind != LAYERED and view.removeprefix(kind).lstrip("-").startswith(LAYERED)


def layers_of(spec: EncoderSpec, view: str, width: int) -> int:
    """How many layers of an encoder, each as wide as its pooled latent, a token has."""
    if not is_layered(view) or not spec.dim or width % spec.dim:
        return 1
    return width // spec.dim


def same_texts(dataset: PairedDataset) -> dict[str, np.ndarray]:
    """modality → int64 `[n]`: items of one number are texts that differ in case and spaces only."""
    found = {}
    for modality, items in dataset.items.items():
        if medium(items.takes).inline:
            plain = [" ".join(str(text).casefold().split()) for text in items.references]
            found[modality] = np.unique(np.array(plain, dtype=object), return_inverse=True)[1]
    return found
