"""The default recipe `auto`: closed forms, then a network beside them, as far as it pays."""

from __future__ import annotations

from fusemix_core.config import Part, Recipe, Training

VIEWS = {"text": "layers-middle-last"}
"""The views that the closed forms prefer."""


def auto() -> Recipe:
    """Regularised CCA in closed form, linear (`cca`), then of a kernel (`kcca`); then a network
    whose embeddings are mixed with theirs, if that finds more.

    Everything is chosen on the validation split. `aligner.budget` (`--budget`) says when to stop.
    For text encoders the middle and last layers are concatenated if the encoder has both. What was
    tried, and the results: docs/decisions/0021-auto.md.
    """
    return Recipe(
        name="auto",
        aligner=Part("auto"),
        summary="closed forms, then a network mixed with them: whatever validates best",
        adapter=Part("wide", {"dropout": 0.3}),
        objective=Part("infonce", {"temperature": 0.07, "mask_shared": True}),
        training=Training(
            epochs=1_000,
            lr=2e-3,
            warmup_steps=50,
            schedule="constant",
            weight_decay=0.1,
            clip_norm=1.0,
            ema=0.98,
            patience=3,
        ),
        views=VIEWS,
    )
