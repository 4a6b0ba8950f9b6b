"""The default recipe `fusemix`: a closed form, linear first, then of a kernel."""

from __future__ import annotations

from fusemix_core.config import Part, Recipe


def fusemix() -> Recipe:
    """Regularised CCA in closed form: linear, then of a kernel.

    Which of both, ridge, power and scorer are chosen on the validation split. What was tried and
    what it gave is in docs/decisions/0005-more-recall.md.
    """
    return Recipe(
        name="fusemix",
        aligner=Part("cca"),
        summary="regularised CCA in closed form, linear or of a kernel",
    )
