"""Contrastive losses that are not built in. Metadata only; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """Two objectives."""
    return [
        ComponentSpec(
            kind="objective",
            name="multiple-negatives",
            target="fusemix_objectives.ranking:MultipleNegatives",
            summary="sentence-transformers' ranking loss: one way, both, or all four blocks",
            options={
                "form": "all-joint",
                "temperature": 0.05,
                "learnable": False,
                "hardness": 0.0,
            },
            paper="https://arxiv.org/abs/1705.00652",
        ),
        ComponentSpec(
            kind="objective",
            name="soft-infonce",
            target="fusemix_objectives.soft:SoftInfoNCE",
            summary="infonce whose targets follow how alike partners are within their modality",
            options={"temperature": 0.07, "learnable": True, "share": 0.3, "sharpness": 0.07},
            paper="https://arxiv.org/abs/2303.17561",
        ),
    ]
