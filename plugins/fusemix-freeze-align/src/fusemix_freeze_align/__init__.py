"""Freeze-Align: tokens projected, then pooled; a loss on tokens; curation. Metadata; no torch."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_core.config import Part, Recipe, Training
from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec

PAPER = "https://arxiv.org/abs/2409.19425"


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """The adapter, the objective with a token-level term, a selector, and a recipe."""
    return [
        ComponentSpec(
            kind="adapter",
            name="token-projectors",
            target="fusemix_freeze_align.adapter:TokenProjectors",
            summary="projects tokens, pools them, projects what is pooled; a projector for the cls",
            options={
                "token": "patch",
                "first": "pool",
                "pooling": "mean",
                "pooled": "identity",
                "dropout": 0.1,
            },
            uses=("tokens",),
            paper=PAPER,
        ),
        ComponentSpec(
            kind="objective",
            name="token-infonce",
            target="fusemix_freeze_align.objective:TokenInfoNCE",
            summary="InfoNCE, and for each text token the places that it describes",
            options={
                "weight": 1.0,
                "threshold": None,
                "language": "text",
                "temperature": 0.07,
                "learnable": True,
                "mask_shared": False,
            },
            uses=("tokens",),
            paper=PAPER,
        ),
        ComponentSpec(
            kind="selector",
            name="concept-balanced",
            target="fusemix_freeze_align.curation:ConceptBalanced",
            summary="as many pairs of each concept, the poorest concepts first",
            options={"by": "", "concepts": 100, "prototypes": "", "order": "last", "spare": 8.0},
            uses=("latents",),
            paper=PAPER,
        ),
        ComponentSpec.recipe(
            freeze_align,
            search={
                "training.lr": (1e-3, 3e-4, 3e-3),
                "training.weight_decay": (0.02, 0.1),
                "adapter.dropout": (0.1, 0.5),
            },
        ),
    ]


def freeze_align() -> Recipe:
    """Freeze-Align (Maniparambil et al., 2025), as its published config has it but for the batch
    of 16,384 and a warm-up of ten epochs, which suit millions of pairs."""
    return Recipe(
        name="freeze-align",
        aligner=Part("gradient"),
        summary="projected tokens of frozen encoders; pictures' first token is the cls",
        paper="arXiv:2409.19425",
        dim=1024,
        adapter=Part("token-projectors", {"first": "patch"}),
        adapters={"text": Part("token-projectors", {"pooled": "mlp"})},
        mixup=Part("none"),
        objective=Part("infonce"),
        training=Training(
            epochs=15,
            lr=1e-3,
            min_lr=1e-5,
            warmup_lr=1e-5,
            schedule="cosine",
            weight_decay=0.02,
        ),
        scorer=Part("cosine"),
    )
