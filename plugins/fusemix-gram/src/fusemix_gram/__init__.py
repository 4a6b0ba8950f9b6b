"""GRAM: modalities aligned by the volume that they span. Metadata only; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fusemix_core.config import Part, Recipe
from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec

PAPER = "https://arxiv.org/abs/2412.11959"


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """The objective, and FuseMix's recipe with it."""
    from fusemix_core.recipes.fusemix import MLP_SEARCH

    return [
        ComponentSpec(
            kind="objective",
            name="gram",
            target="fusemix_gram.objective:GramObjective",
            summary="contrast of the volumes that an anchor spans with all other modalities",
            options={"anchor": "", "temperature": 0.07, "learnable": True, "smoothing": 0.1},
            paper=PAPER,
        ),
        ComponentSpec.recipe(gram, search=MLP_SEARCH),
    ]


def gram() -> Recipe:
    """The loss of GRAM (Cicchetti et al., ICLR 2025) on cached latents.

    The paper trains whole encoders; adapters, optimiser and augmentation here are those of
    `fusemix`, so that the objectives can be compared.
    """
    from fusemix_core.recipes.fusemix import fusemix

    return replace(
        fusemix(),
        name="gram",
        summary="several modalities aligned by the volume that they span",
        paper="arXiv:2412.11959",
        objective=Part("gram"),
    )
