"""The default recipe `fusemix`: a closed form first, FuseMix from there."""

from __future__ import annotations

from fusemix_core.config import Part, Recipe, Training


def fusemix() -> Recipe:
    """Regularised CCA with random features in closed form, refined on FuseMix batches from there.

    Ridge, power, weights and scorer are chosen on the validation split; where refining does not
    help, the closed form is what is kept. What was tried and what it gave is in
    docs/decisions/0004-the-default-recipe.md.
    """
    return Recipe(
        name="fusemix",
        aligner=Part("gradient"),
        summary="regularised CCA in closed form, refined with FuseMix from there",
        start=Part("cca"),
        adapter=Part("kernel"),
        mixup=Part("fusemix"),
        objective=Part("infonce", {"temperature": 0.05, "learnable": False, "mask_shared": True}),
        training=Training(
            epochs=15,
            max_steps=2000,
            lr=5e-4,
            min_lr=0.0,
            warmup_lr=0.0,
            warmup_steps=10,
            schedule="cosine",
            weight_decay=0.0,
            patience=6,
        ),
    )
