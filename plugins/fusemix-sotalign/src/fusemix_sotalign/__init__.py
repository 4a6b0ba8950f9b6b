"""SOTAlign: few pairs, and many items without a partner. Metadata only; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_core.config import Part, Recipe, Training
from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec

PAPER = "https://arxiv.org/abs/2602.23353"


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """The objective and the recipe."""
    return [
        ComponentSpec(
            kind="objective",
            name="klot",
            target="fusemix_sotalign.objective:KLOTObjective",
            summary="another objective on the pairs, a teacher's transport plan on all items",
            options={
                "objective": "infonce",
                "options": {},
                "weight": 1.0,
                "teacher": "cca",
                "teacher_options": {},
                "epsilon": 0.05,
                "teacher_epsilon": 0.02,
                "iterations": 50,
                "tolerance": 1e-6,
                "rows": 1024,
            },
            uses=("latents", "unpaired"),
            wraps="objective",
            paper=PAPER,
        ),
        ComponentSpec.recipe(
            sotalign,
            search={"training.lr": (1e-3, 3e-4, 3e-3), "training.weight_decay": (1e-4, 1e-2)},
        ),
    ]


def sotalign() -> Recipe:
    """SOTAlign (Roschmann et al., 2026): a linear teacher of the pairs, and KLOT to it on all.

    The adapters start from the teacher's map. All values are ours: the paper's code is not public.
    """
    return Recipe(
        name="sotalign",
        aligner=Part("gradient"),
        summary="linear adapters of few pairs and of items without a partner",
        paper="arXiv:2602.23353",
        start=Part("cca", {"landmarks": 0}),
        adapter=Part("kernel"),
        mixup=Part("none"),
        objective=Part(
            "klot",
            {
                "options": {"temperature": 0.1, "learnable": False},
                "teacher_options": {"landmarks": 0},
            },
        ),
        training=Training(
            epochs=60, lr=1e-3, weight_decay=1e-4, schedule="cosine", patience=8, unpaired=512
        ),
        scorer=Part("cosine"),
    )
