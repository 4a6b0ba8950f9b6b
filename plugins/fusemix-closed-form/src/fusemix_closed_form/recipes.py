"""The recipes `csa`, `asif`, `procrustes` and `ridge`."""

from __future__ import annotations

from fusemix_core.config import Part, Recipe

COSINE = Part("cosine")


def csa() -> Recipe:
    """Canonical similarity analysis (Li et al., 2024). Validation chooses the ridge."""
    return Recipe(
        "csa", Part("csa"), "canonical similarity analysis", "arXiv:2410.07610", scorer=COSINE
    )


def asif() -> Recipe:
    """ASIF (Norelli et al., 2023). Validation chooses how much is kept, and the power."""
    return Recipe(
        "asif", Part("asif"), "relative representations", "arXiv:2210.01738", scorer=COSINE
    )


def procrustes() -> Recipe:
    """Orthogonal Procrustes (Schönemann, 1966) on standardised latents."""
    return Recipe("procrustes", Part("procrustes"), "orthogonal Procrustes", scorer=COSINE)


def ridge() -> Recipe:
    """Ridge regression on the last modality's latents. Validation chooses the ridge."""
    return Recipe("ridge", Part("ridge"), "one side regressed on the other", scorer=COSINE)


SEARCHES = {
    csa: {"aligner.dim": (128, 64, 256, 384)},
    asif: {"aligner.anchors": (4096, 1024, 2048)},
    procrustes: {"aligner.dim": (384, 128, 256)},
    ridge: {},
}
"""Recipe → what a search tries, beyond what validation chooses in any case."""
