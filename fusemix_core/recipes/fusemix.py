"""The default recipe `fusemix`: a closed form first, FuseMix from there."""

from __future__ import annotations

from fusemix_core.config import Part, Recipe, Training


def fusemix() -> Recipe:
    return Recipe(
        name="fusemix",
        aligner=Part("gradient"),
        summary="regularised CCA in closed form, refined with FuseMix from there",
        start=Part("cca"),
        adapter=Part("residual"),
        mixup=Part("fusemix"),
        objective=Part("infonce", {"temperature": 0.05, "learnable": False, "mask_shared": True}),
        training=Training(
            epochs=15,
            lr=5e-4,
            min_lr=0.0,
            warmup_lr=0.0,
            warmup_steps=10,
            schedule="cosine",
            weight_decay=0.0,
            evaluate_every=3,
            patience=3,
        ),
    )
