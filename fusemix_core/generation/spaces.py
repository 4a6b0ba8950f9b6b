"""The space of a generator: which encoder conditions it, and whether a fused model is aligned to
that one."""

from __future__ import annotations

import torch

from fusemix_core.devices import resolve_device
from fusemix_core.errors import ConfigError
from fusemix_core.fused import FusedModel
from fusemix_core.hub import without_waiting
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import Registry
from fusemix_core.saved.encoders import LazyEncoder
from fusemix_core.saved.schema import EncoderInfo
from fusemix_core.specs import EncoderSpec, GeneratorSpec

FIXED = "identity"
"""The adapter of a modality whose latents are the shared space."""


def space_of(spec: GeneratorSpec, registry: Registry) -> EncoderSpec:
    """The encoder whose latents condition a generator.

    Raises `ConfigError` if that encoder has not the view, or latents of another width.
    """
    space = registry.encoder(spec.space)
    if spec.view not in space.views:
        raise ConfigError(
            f"The generator '{spec.name}' is conditioned by the view '{spec.view}' of the encoder "
            f"'{space.name}', which has {', '.join(space.views)}."
        )
    if spec.view == "pooled" and None not in (spec.dim, space.dim) and spec.dim != space.dim:
        raise ConfigError(
            f"The generator '{spec.name}' takes conditions of width {spec.dim}, and the encoder "
            f"'{space.name}' gives latents of width {space.dim}.",
            "One of them is not the one that the generator was trained with.",
        )
    return space


def own_encoder(spec: GeneratorSpec, device: torch.device, registry: Registry) -> LazyEncoder:
    """The encoder of a generator's space, which encodes items of its own modality without a fused
    model."""
    space = space_of(spec, registry)
    return encoder_alone(space, spec.view, spec.dim or space.dim or 0, device, registry, spec.name)


def encoder_alone(
    space: EncoderSpec,
    view: str,
    dim: int,
    device: torch.device,
    registry: Registry,
    name: str = "",
) -> LazyEncoder:
    """A registered encoder without a saved model.

    Args:
        space: its spec.
        view, dim: the view, and its width.
        device: where it runs.
        registry: for its class.
        name: the name in messages; by default its own.
    """
    known, source = fingerprint(space, "float32"), None
    if known is None:
        space.check_requirements()
        with without_waiting(space, registry):
            source = registry.target_of(space).load(space, device, torch.float32)
        known = fingerprint(space, "float32", source.weights_digest)
    info = EncoderInfo.of(
        space, modality=space.modality, dim=dim, fingerprint=known, view=view, registry=registry
    )
    return LazyEncoder(info, source or space, device, registry, name or space.name)


def fixed_modality(spec: GeneratorSpec, model: FusedModel) -> str:
    """The fixed modality of a fused model whose encoder conditions a generator.

    Raises:
        ConfigError: There is none. The hint is the command that fits such a model.
    """
    space = space_of(spec, model.registry)
    fixed = [m for m in model.modalities if model.adapter_part(m).name == FIXED]
    for modality in fixed:
        info = model.encoders[modality]
        same = info.view == spec.view and info.dim == model.dim
        if same and _is_encoder(space, info, model):
            return modality
    raise ConfigError(_why_not(spec, space, model, fixed), align_line(spec, space, model))


def _is_encoder(space: EncoderSpec, info: EncoderInfo, model: FusedModel) -> bool:
    """Whether the latents of a model's modality come from this encoder."""
    digest = None
    if fingerprint(space, info.dtype) is None:
        space.check_requirements()
        device = resolve_device(model.device)
        with without_waiting(space, model.registry):
            target = model.registry.target_of(space)
            digest = target.load(space, device, getattr(torch, info.dtype)).weights_digest
    found = {fingerprint(space, info.dtype, digest, decoding=at) for at in (None, 1)}
    return info.fingerprint in found


def _why_not(spec: GeneratorSpec, space: EncoderSpec, model: FusedModel, fixed: list[str]) -> str:
    needed = f"'{spec.name}' draws from latents of the encoder '{space.name}', view '{spec.view}'"
    if not fixed:
        return f"{needed}. {model.name} has no fixed modality: all of its adapters were fitted."
    had = "; ".join(
        f"{m}: '{model.encoders[m].name}', view '{model.encoders[m].view}'" for m in fixed
    )
    names = {model.encoders[m].name for m in fixed}
    other = " Another version of it has other latents." if space.name in names else ""
    return f"{needed}. The fixed modalities of {model.name} are {had}.{other}"


def align_line(
    spec: GeneratorSpec, space: EncoderSpec, model: FusedModel | None, modality: str = "audio"
) -> str:
    """The command that fits a model to the space of a generator.

    Args:
        model: Whose other modalities are aligned again. None: only `modality` is.
    """
    own = space.modality
    encoders = {m: i.name for m, i in model.encoders.items() if m != own} if model else {}
    encoders = {**(encoders or {modality: "ENCODER"}), own: spec.space}
    line = " ".join(f"-e {modality}={name}" for modality, name in encoders.items())
    view = "" if spec.view == space.views[0] else f" --view {own}={spec.view}"
    return (
        f"Align to that encoder:\nfusemix align {line}{view} --fixed {own} --data PAIRS --out RUN"
    )
