"""Any timm image model as a fusemix encoder: `timm:NAME`. Metadata only; imports neither timm nor
torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fusemix_core.errors import ConfigError
from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import EncoderSpec, FamilySpec

REQUIRES = {"timm": "timm>=1.0.16"}
TARGET = "fusemix_timm.encoder:TimmEncoder"


@hookimpl
def fusemix_encoders() -> Iterable[EncoderSpec | FamilySpec]:
    """The family `timm:`."""
    return [
        FamilySpec(
            prefix="timm",
            resolve="fusemix_timm:resolve",
            summary="any image model of timm, with timm's own preprocessing",
            example="timm:convnext_tiny.fb_in22k",
            requires=REQUIRES,
        )
    ]


def resolve(name: str, modality: str | None = None, path: Path | None = None) -> EncoderSpec:
    """The spec of `timm:NAME`. Whether timm has such a model shows when it is loaded."""
    if not name.strip():
        raise ConfigError("'timm:' names no model.", "Example: timm:convnext_tiny.fb_in22k")
    return EncoderSpec(
        name=f"timm:{name}",
        modality="image",
        target=TARGET,
        summary=f"timm's {name}",
        requires=REQUIRES,
        options={"model": name},
    )
