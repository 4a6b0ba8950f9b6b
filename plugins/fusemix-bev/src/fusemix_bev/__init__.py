"""Maps of several sensors that may not line up, fused cell by cell. Metadata only; imports no
torch."""

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
            name="grid",
            aliases=("bev",),
            target="fusemix_bev.fuser:GridFuser",
            summary="convolutions on the grids of several sensors, which may not line up",
            options={
                "dilation": "content",
                "gate": "own",
                "dilations": (1, 2, 3),
                "width": 24,
                "grid": (),
                "sizes": {},
                "mix": 0.0,
                "drop": None,
                "training": {},
            },
            uses=("tokens",),
            paper="https://arxiv.org/abs/2402.00637",
        ),
    ]
