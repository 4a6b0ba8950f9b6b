"""CSA, ASIF, orthogonal Procrustes and ridge regression. Metadata only; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_closed_form import recipes
from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec

CSA = "https://arxiv.org/abs/2410.07610"
ASIF = "https://arxiv.org/abs/2210.01738"
PROCRUSTES = "https://doi.org/10.1007/BF02289451"
RIDGES = (1.0, 10.0, 100.0)


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """The four aligners, what CSA and ASIF need of an adapter, and a recipe for each."""
    return [
        ComponentSpec(
            kind="aligner",
            name="csa",
            target="fusemix_closed_form.csa:CSAAligner",
            summary="canonical similarity: CCA, unit variates, products weighted by correlation",
            options={"dim": 128, "ridges": (0.0, 1.0, 10.0)},
            paper=CSA,
        ),
        ComponentSpec(
            kind="adapter",
            name="csa",
            target="fusemix_closed_form.csa:CSAAdapter",
            summary="a linear map to unit rows whose products are weighted",
            options={"side": 0, "sides": 2},
            paper=CSA,
        ),
        ComponentSpec(
            kind="aligner",
            name="asif",
            target="fusemix_closed_form.asif:ASIFAligner",
            summary="similarities to training pairs as embeddings: nothing is trained",
            options={"anchors": 4096, "keeps": (100, 400, 800), "powers": (1, 4, 8)},
            keeps_items=True,
            paper=ASIF,
        ),
        ComponentSpec(
            kind="adapter",
            name="asif",
            target="fusemix_closed_form.asif:ASIFAdapter",
            summary="the largest similarities to anchors, raised to a power",
            options={"keep": 800, "power": 8},
            keeps_items=True,
            paper=ASIF,
        ),
        ComponentSpec(
            kind="aligner",
            name="procrustes",
            target="fusemix_closed_form.linear:ProcrustesAligner",
            summary="the rotations of each modality that bring partners together",
            options={"dim": 384},
            uses=("fixed",),
            paper=PROCRUSTES,
        ),
        ComponentSpec(
            kind="aligner",
            name="ridge",
            target="fusemix_closed_form.linear:RidgeAligner",
            summary="ridge regression of all other modalities on one, which stays as it is",
            options={"target": "", "ridges": RIDGES},
            uses=("fixed",),
        ),
        # Not by `from recipes import csa`: the submodule `csa` would take the function's name.
        *(
            ComponentSpec.recipe(function, search=search)
            for function, search in recipes.SEARCHES.items()
        ),
    ]
