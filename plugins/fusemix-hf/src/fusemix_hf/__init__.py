"""Any transformers model as a fusemix encoder: `hf:NAME`. Metadata only; imports neither
transformers nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import FamilySpec

if TYPE_CHECKING:
    import typer

REQUIRES = {"transformers": "transformers>=5.4", "huggingface_hub": "huggingface_hub>=1.0"}
EXAMPLE = "hf:google/vit-base-patch16-224-in21k"


@hookimpl
def fusemix_encoders() -> Iterable[FamilySpec]:
    """The family `hf:`."""
    return [
        FamilySpec(
            prefix="hf",
            resolve="fusemix_hf.resolving:resolve",
            summary="any model of text, images or audio that transformers has itself",
            example=EXAMPLE,
            requires=REQUIRES,
        )
    ]


@hookimpl
def fusemix_commands(app: typer.Typer) -> None:
    """`fusemix convert-weights`."""
    from fusemix_hf.command import convert_weights

    app.command("convert-weights", rich_help_panel="Prepare and keep")(convert_weights)
