"""The recipes `cca` and `kcca`: the two closed forms that `auto` chooses from."""

from __future__ import annotations

from fusemix_core.config import Part, Recipe
from fusemix_core.recipes.auto import VIEWS

CCA_SEARCH = {"aligner.dim": (384, 128, 256)}
"""The values that a search tries; ridge and power are chosen on validation in any case."""


def cca() -> Recipe:
    """Regularised linear CCA; ridge, power and scorer are chosen on the validation split."""
    return Recipe(
        name="cca",
        aligner=Part("cca", {"landmarks": 0}),
        summary="regularised linear CCA in closed form",
        views=VIEWS,
    )


def kcca() -> Recipe:
    """Regularised CCA of a rational quadratic kernel with a linear part.

    Ridge, power and scorer are chosen on the validation split. `aligner.landmarks` is how many
    training items of a modality the model keeps: all of them if there are fewer (exact kernel
    CCA), otherwise a seeded sample (Nyström's approximation). It is 4,096 on any device; `auto`
    takes more on a GPU with room for them.
    """
    return Recipe(
        name="kcca",
        aligner=Part("cca", {"landmarks": 4_096}),
        summary="regularised kernel CCA in closed form",
        views=VIEWS,
    )


def exportable() -> Recipe:
    """Kernel CCA of which every part can be written as layers of sentence-transformers.

    It differs from `kcca` in what these layers can't express: latents are the encoders' last ones
    only, without a square root, and scores are cosines. What that costs:
    docs/how-to/export.md#sentence-transformers.
    """
    return Recipe(
        name="exportable",
        aligner=Part("cca", {"landmarks": 4_096, "root": False}),
        scorer=Part("cosine"),
        summary="kernel CCA for sentence-transformers: no layers, no root, cosine",
    )
