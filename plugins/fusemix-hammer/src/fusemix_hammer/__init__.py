"""HAMMER: pairs of which some don't belong together. Metadata only; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fusemix_core.config import Part, Recipe, Training
from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec

if TYPE_CHECKING:
    import typer

PAPER = "https://arxiv.org/abs/2304.02556"


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """The objective, a recipe with it, and what predicts manipulations."""
    return [
        ComponentSpec(
            kind="objective",
            name="hammer",
            target="fusemix_hammer.objective:HammerObjective",
            summary="contrast by trust, with targets of averaged adapters and a queue of negatives",
            options={
                "temperature": 0.07,
                "learnable": True,
                "alpha": 0.4,
                "warmup": 0,
                "momentum": 0.995,
                "queue": 65_536,
            },
            uses=("trust", "adapters"),
            paper=PAPER,
        ),
        ComponentSpec(
            kind="task",
            name="manipulation",
            target="fusemix_hammer.task:Manipulation",
            summary="whether a pair is real, what was done to it, and where",
            options={
                "modality": "text",
                "kinds": (),
                "boxed": (),
                "length": 0,
                "weights": (1.0, 1.0, 0.1, 0.1, 1.0),
            },
            paper=PAPER,
        ),
        ComponentSpec(
            kind="fuser",
            name="hammer",
            target="fusemix_hammer.fuser:HammerFuser",
            summary="HAMMER: the text's tokens attend to the image's, with the paper's heads",
            options={
                "width": 128,
                "heads": 4,
                "own": 1,
                "depth": 2,
                "dropout": 0.1,
                "contrast": 0.1,
                "local": True,
                "fused": True,
                "text": "text",
                "kinds": 0,
                "words": 0,
                "drop": None,
                "training": {},
            },
            uses=("tokens",),
            paper=PAPER,
        ),
        ComponentSpec.recipe(
            hammer,
            search={"training.lr": (1e-3, 3e-4, 3e-3), "training.weight_decay": (0.02, 0.1)},
        ),
    ]


@hookimpl
def fusemix_commands(app: typer.Typer) -> None:
    """`fusemix hammer-data`."""
    from fusemix_hammer.command import hammer_data

    app.command("hammer-data", rich_help_panel="Prepare and keep")(hammer_data)


def hammer() -> Recipe:
    """The contrastive part of HAMMER (Shao et al., CVPR 2023) on cached latents.

    Adapter, width, temperature, momentum and distillation are the original's; it trains whole
    encoders, so the optimiser's settings are those that suit adapters only, and the queue is
    shorter, so that it does not hold the items of the batch themselves in a small set.
    """
    return Recipe(
        name="hammer",
        aligner=Part("gradient"),
        summary="linear adapters for pairs in which some are known to be wrong",
        paper="arXiv:2304.02556",
        dim=256,
        adapter=Part("linear"),
        mixup=Part("none"),
        objective=Part("hammer", {"queue": 1024, "warmup": 100}),
        training=Training(epochs=50, lr=1e-3, warmup_steps=100, weight_decay=0.02),
        scorer=Part("cosine"),
    )
