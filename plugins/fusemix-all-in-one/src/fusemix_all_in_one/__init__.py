"""All-in-One: a transformer on texts and frames, in which frames exchange tokens by rolling.
Metadata only; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """The fuser `rolling`."""
    return [
        ComponentSpec(
            kind="fuser",
            name="rolling",
            aliases=("all-in-one",),
            target="fusemix_all_in_one.fuser:RollingFuser",
            summary="a transformer on each frame with all texts; frames exchange tokens by rolling",
            options={
                "clip": "video",
                "per_frame": 1,
                "roll": "default",
                "order": True,
                "width": 128,
                "layers": 2,
                "heads": 4,
                "dropout": 0.2,
                "mix": 0.4,
                "drop": None,
                "training": {},
            },
            uses=("tokens",),
            paper="https://arxiv.org/abs/2203.07303",
        )
    ]
