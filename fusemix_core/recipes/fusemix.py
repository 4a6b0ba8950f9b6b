"""The default recipe `fusemix`: a closed form, linear first, then of a kernel."""

from __future__ import annotations

from fusemix_core.config import Part, Recipe


def fusemix() -> Recipe:
    """Regularised CCA in closed form: linear, then of a kernel.

    Which of both, ridge, power and scorer are chosen on the validation split. Of texts, the middle
    layer stands beside the last where the encoder gives both. What was tried and what it gave is in
    docs/decisions/0005-more-recall.md and 0011-a-better-default.md.
    """
    return Recipe(
        name="fusemix",
        aligner=Part("cca"),
        summary="regularised CCA in closed form, linear or of a kernel",
        views={"text": "layers-middle-last"},
    )
