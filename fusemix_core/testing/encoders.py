"""`check_encoder`: whether an encoder keeps its contract. The checks are in
`encoder_checks`, `encoder_fits` and `encoder_surroundings`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from fusemix_core.devices import resolve_device
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Encoder
from fusemix_core.registry import Registry, registry
from fusemix_core.specs import EncoderSpec
from fusemix_core.testing import (  # noqa: F401  their checks
    encoder_checks,
    encoder_fits,
    encoder_surroundings,
)
from fusemix_core.testing.encoder_case import ENCODER, EncoderCase
from fusemix_core.testing.items import edges, items_for
from fusemix_core.testing.report import Report
from fusemix_core.testing.watch import Watch

Subject = str | EncoderSpec | type[Encoder] | Callable[[], Encoder]
"""An encoder to check: a name as on the command line, a spec, a class that has one, or a function
that makes one."""


def check_encoder(
    subject: Subject,
    *,
    encoder: Encoder | None = None,
    tiny: bool = False,
    items: Sequence[Any] | None = None,
    device: str | torch.device = "auto",
    modality: str | None = None,
    tolerance: float = 1e-3,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check an encoder: the real one, loaded on `device`; its `tiny` miniature; or a given one.

    A given `encoder` is not loaded again, so checks of loading are left out; for a miniature, and
    for what a function makes, that of loading in half precision.

    items: decoded items, by default the encoder's `sample_items` or made-up ones. modality: what a
    family may need to know. tolerance: the largest difference, relative to the largest latent, that
    another batch size may make. expected_failures: name of a check → why it fails. `collate` runs
    in a spawned process: a script needs the guard `if __name__ == "__main__":`.

    Errors of the checks are results; those of finding and loading the encoder are raised.
    """
    ENCODER.expected(expected_failures)
    case = prepare(
        subject,
        encoder=encoder,
        tiny=tiny,
        items=items,
        device=device,
        modality=modality,
        tolerance=tolerance,
        registry=registry,
    )
    return ENCODER.run(case.spec.name, case, expected_failures)


def prepare(
    subject: Subject,
    *,
    encoder: Encoder | None = None,
    tiny: bool = False,
    items: Sequence[Any] | None = None,
    device: str | torch.device = "auto",
    modality: str | None = None,
    tolerance: float = 1e-3,
    registry: Registry = registry,
) -> EncoderCase:
    """The case that the checks look at; arguments as of `check_encoder`."""
    made = not isinstance(subject, str | EncoderSpec | type) and callable(subject)
    if made:
        with Watch()("importing"):
            encoder = subject()
        given = {"make": subject, "tolerance": tolerance, "registry": registry}
        return _case(encoder.spec, encoder, items, **given)
    spec = _spec(subject, modality, registry)
    if encoder is not None:
        return _case(encoder.spec, encoder, items, tolerance=tolerance, registry=registry)
    spec.check_requirements()
    target = subject if isinstance(subject, type) else registry.target_of(spec)
    declared = spec
    if spec.unfitted:
        spec = target.fit(spec, items_for(target, spec) if items is None else list(items))
    place = torch.device("cpu") if tiny else resolve_device(device)

    def load(dtype: torch.dtype) -> Encoder:
        return target.load(spec, place, dtype)

    def make() -> Encoder:
        return _miniature(target, spec) if tiny else load(torch.float32)

    with Watch()("importing"):  # what libraries do when first imported is not the encoder's doing
        encoder = make()
    return _case(
        encoder.spec if tiny or _narrows(encoder, spec) else spec,
        encoder,
        items,
        tolerance=tolerance,
        make=make,
        load=None if tiny else load,
        device=place,
        declared=declared,
        registry=registry,
    )


def _case(
    spec: EncoderSpec,
    encoder: Encoder,
    items: Sequence[Any] | None,
    *,
    registry: Registry,
    **given: Any,
) -> EncoderCase:
    chosen = items_for(type(encoder), spec) if items is None else list(items)
    plugin = _plugin_module(spec, registry)
    return EncoderCase(spec, encoder, chosen, edges(spec), plugin=plugin, **given)


def _narrows(encoder: Encoder, spec: EncoderSpec) -> bool:
    """Whether loading told more than a family could: fewer views, the width."""
    found = getattr(encoder, "spec", None)
    return (
        isinstance(found, EncoderSpec)
        and set(found.views) <= set(spec.views)
        and spec.dim in (None, found.dim)
    )


def _miniature(target: type[Encoder], spec: EncoderSpec) -> Encoder:
    try:
        return target.tiny(spec)
    except NotImplementedError as error:
        raise ConfigError(
            f"{spec.name} has no miniature.", "Check the encoder itself, or implement `tiny`."
        ) from error


def _spec(subject: Subject, modality: str | None, registry: Registry) -> EncoderSpec:
    if isinstance(subject, str):
        return registry.encoder(subject, modality)
    spec = subject if isinstance(subject, EncoderSpec) else getattr(subject, "spec", None)
    if not isinstance(spec, EncoderSpec):
        raise ConfigError(
            f"{subject!r} can't be checked as an encoder.",
            "Give a name, an EncoderSpec, an Encoder class with a `spec`, or what makes one.",
        )
    return spec


def _plugin_module(spec: EncoderSpec, registry: Registry) -> str:
    """The module by which the encoder's package is listed; "" for a class outside any plugin."""
    package = spec.target.partition(":")[0].partition(".")[0]
    registry.load()
    modules = [p.module.partition(":")[0] for p in registry.plugins]
    return next((m for m in modules if m.partition(".")[0] == package), "")
