"""Any transformers model as a fusemix encoder, `hf:NAME`, and text encoders of medicine. Metadata
only; imports neither transformers nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import EncoderSpec, FamilySpec
from fusemix_hf.clinical import presets

if TYPE_CHECKING:
    import typer

REQUIRES = {"transformers": "transformers>=5.4", "huggingface_hub": "huggingface_hub>=1.0"}
EXAMPLE = "hf:google/vit-base-patch16-224-in21k"


@hookimpl
def fusemix_encoders() -> Iterable[EncoderSpec | FamilySpec]:
    """The family `hf:`, and the presets."""
    return [
        *presets(REQUIRES),
        FamilySpec(
            prefix="hf",
            resolve="fusemix_hf.resolving:resolve",
            summary="any model of text, images or audio that transformers has itself",
            example=EXAMPLE,
            requires=REQUIRES,
        ),
    ]


@hookimpl
def fusemix_commands(app: typer.Typer) -> None:
    """`fusemix convert-weights`."""
    from fusemix_hf.command import convert_weights

    app.command("convert-weights", rich_help_panel="Prepare and keep")(convert_weights)
