"""STRUCTURE: neighbourhoods of the latents kept by the embeddings. Metadata only; no torch."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_core.config import Part, Recipe, Training
from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec

PAPER = "https://arxiv.org/abs/2506.16895"


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """The objective, the low-rank head, the choice of layers, and the recipe."""
    return [
        ComponentSpec(
            kind="objective",
            name="structure",
            target="fusemix_structure.objective:StructureObjective",
            summary="another objective, and a price on neighbourhoods that change",
            options={
                "objective": "infonce",
                "options": {},
                "weight": 10.0,
                "warmup": 1000,
                "levels": 1,
                "weighting": "none",
                "temperature": 0.05,
                "divergence": "repo",
                "kernel": "cosine",
                "centring": "mean",
                "centre_first": False,
                "margin": 0.0,
                "rows": 2048,
            },
            uses=("latents",),
            wraps="objective",
            paper=PAPER,
        ),
        ComponentSpec(
            kind="adapter",
            name="low-rank-residual",
            target="fusemix_structure.head:LowRankResidualAdapter",
            summary="a linear map and a gated low-rank one beside it",
            options={"rank": None, "gate": 0.5, "dropout": 0.0},
            paper=PAPER,
        ),
        ComponentSpec(
            kind="aligner",
            name="best-layers",
            target="fusemix_structure.layers:BestLayersAligner",
            summary="another aligner, on the layer of each encoder that is most alike the others'",
            options={"aligner": "gradient", "options": {}, "neighbours": 10, "sample": 1000},
            wraps="aligner",
            paper=PAPER,
        ),
        ComponentSpec(
            kind="adapter",
            name="layer",
            target="fusemix_structure.layers:LayerAdapter",
            summary="another adapter, on one layer of a view of several",
            options={"layers": 1, "layer": 0, "adapter": "linear", "options": {}},
            wraps="adapter",
            paper=PAPER,
        ),
        ComponentSpec.recipe(
            structure,
            search={"training.lr": (3e-3, 1e-3, 9e-3), "objective.weight": (10.0, 1.0, 30.0)},
        ),
    ]


def structure() -> Recipe:
    """STRUCTURE (Gröger et al., 2025): linear adapters, InfoNCE, the regulariser at weight 10.

    Rate, warm-up and temperature are ours, for thousands of pairs: some hundred steps, in which a
    warm-up of a thousand would leave no regulariser, and a learnt temperature falls to where the
    pairs are learnt by heart.
    """
    return Recipe(
        name="structure",
        aligner=Part("best-layers", {"aligner": "gradient"}),
        summary="linear adapters that keep the latents' neighbourhoods",
        paper="arXiv:2506.16895",
        dim=512,
        adapter=Part("linear"),
        mixup=Part("none"),
        objective=Part(
            "structure", {"warmup": 24, "options": {"temperature": 0.3, "learnable": False}}
        ),
        training=Training(epochs=30, lr=3e-3, weight_decay=1e-4, schedule="cosine", patience=8),
        scorer=Part("cosine"),
    )
