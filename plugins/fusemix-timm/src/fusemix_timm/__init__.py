"""Any timm image model as a fusemix encoder: `timm:NAME`, and presets. Metadata only; imports
neither timm nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fusemix_core.errors import ConfigError
from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import EncoderSpec, FamilySpec
from fusemix_timm.presets import PRESETS, REQUIRES, TARGET, VIEWS


@hookimpl
def fusemix_encoders() -> Iterable[EncoderSpec | FamilySpec]:
    """The presets and the family `timm:`."""
    return [
        *PRESETS,
        FamilySpec(
            prefix="timm",
            resolve="fusemix_timm:resolve",
            summary="any image model of timm, with timm's own preprocessing",
            example="timm:convnext_tiny.fb_in22k",
            requires=REQUIRES,
        ),
    ]


def resolve(name: str, modality: str | None = None, path: Path | None = None) -> EncoderSpec:
    """The spec of `timm:NAME`. Whether timm has such a model, and which of the views that has,
    shows when it is loaded."""
    if not name.strip():
        raise ConfigError("'timm:' names no model.", "Example: timm:convnext_tiny.fb_in22k")
    return EncoderSpec(
        name=f"timm:{name}",
        modality="image",
        target=TARGET,
        views=VIEWS,
        summary=f"timm's {name}",
        requires=REQUIRES,
        options={"model": name},
    )
