"""MM-Lego: blocks of one modality each, merged or fused. Metadata only; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """The fuser."""
    return [
        ComponentSpec(
            kind="fuser",
            name="lego",
            target="fusemix_mm_lego.fuser:LegoFuser",
            summary="a block per modality trained by itself, merged without paired rows, or fused",
            options={
                "mode": "merge",
                "merge": "mean",
                "heads_by": "slerp",
                "fuse": "stack",
                "fuse_epochs": 5,
                "frequency": True,
                "width": 64,
                "channels": 16,
                "latent_width": 32,
                "depth": 2,
                "heads": 4,
                "head_width": 16,
                "mix": 0.4,
                "drop": None,
                "training": {},
            },
            uses=("tokens",),
            paper="https://arxiv.org/abs/2405.19950",
        )
    ]
