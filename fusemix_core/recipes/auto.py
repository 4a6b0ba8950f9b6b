"""The default recipe `auto`: a closed form, linear or of a kernel, whichever validates better."""

from __future__ import annotations

from fusemix_core.config import Part, Recipe

VIEWS = {"text": "layers-middle-last"}
"""The views that the closed forms prefer."""


def auto() -> Recipe:
    """Regularised CCA in closed form: linear (`cca`), then of a kernel (`kcca`).

    Linear or kernel, ridge, power and scorer are chosen on the validation split. For text encoders
    the middle and last layers are concatenated if the encoder gives both. What was tried, and the
    results: docs/decisions/0005-more-recall.md and 0011-a-better-default.md.
    """
    return Recipe(
        name="auto",
        aligner=Part("cca"),
        summary="regularised CCA in closed form, linear or of a kernel",
        views=VIEWS,
    )
