"""Audio-visual glance: a cheap pass over frames and sound says which few frames, and which part of
each, go through an expensive encoder. Metadata only; imports neither torch nor av."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec

if TYPE_CHECKING:
    import typer

PAPER = "https://arxiv.org/abs/2308.09322"


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """The fuser of the cheap pass, and the saved model of both passes."""
    return [
        ComponentSpec(
            kind="fuser",
            name="glance",
            aliases=("avgn",),
            target="fusemix_glance.fuser:GlanceFuser",
            summary="learns which moments of a clip matter, and which region of each",
            options={
                "seen": "image",
                "moments": 30,
                "width": 64,
                "layers": 1,
                "heads": 4,
                "dropout": 0.3,
                "guide": 5.0,
                "mix": 0.0,
                "drop": None,
                "training": {},
            },
            uses=("tokens",),
            paper=PAPER,
        ),
        ComponentSpec(
            kind="artefact",
            name="glance",
            target="fusemix_glance.model:GlanceModel",
            summary="predicts from a few frames of a film, chosen by a cheap pass over all of it",
            paper=PAPER,
        ),
    ]


@hookimpl
def fusemix_commands(app: typer.Typer) -> None:
    """`fusemix glance sample`, `fusemix glance fit` and `fusemix glance predict`."""
    from fusemix_glance.command import glance

    app.add_typer(glance, name="glance", rich_help_panel="Start")
