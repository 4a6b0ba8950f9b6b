"""SAIL's alignment layers and loss, ShareLock's head. Metadata only; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fusemix_core.config import Part, Recipe, Training
from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec

PAPER = "https://arxiv.org/abs/2412.04616"

SEARCH = {"training.lr": (3e-4, 1e-4, 9e-4), "training.weight_decay": (1e-4, 1e-2)}
"""The values that a search tries."""


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """Two adapters, two objectives, and two recipes."""
    return [
        ComponentSpec(
            kind="adapter",
            name="sail",
            target="fusemix_sail.layers:AlignmentLayer",
            summary="a norm, then a linear, gated or two-layer map",
            options={"layer": "glu", "width_factor": 8},
            paper=PAPER,
        ),
        ComponentSpec(
            kind="adapter",
            name="sharelock",
            target="fusemix_sail.layers:ShareLockHead",
            summary="three layers with batch norm, then a linear one",
            options={"hidden": 4096, "dropout": 0.2},
            paper="https://arxiv.org/abs/2410.07173",
        ),
        ComponentSpec(
            kind="objective",
            name="sail",
            target="fusemix_sail.objective:SailObjective",
            summary="the sigmoid loss over all pairs, of an anchor with every other modality",
            options={
                "scale": 20.0,
                "bias": -10.0,
                "learnable": True,
                "anchor": "",
                "shared": "positive",
            },
            paper=PAPER,
        ),
        ComponentSpec(
            kind="objective",
            name="barlow",
            target="fusemix_sail.barlow:BarlowTwins",
            summary="Barlow Twins: features correlated across modalities, and not among each other",
            options={"weight": 0.0051},
            paper="https://arxiv.org/abs/2103.03230",
        ),
        ComponentSpec.recipe(
            sail,
            search=SEARCH
            | {"adapter.layer": ("linear", "glu"), "objective.scale": (10.0, 5.0, 20.0)},
        ),
        ComponentSpec.recipe(alignment_probing, search=SEARCH),
    ]


def sail() -> Recipe:
    """SAIL (Zhang et al., 2025): alignment layers and a sigmoid loss.

    Layer, dimensions, rate, decay, epochs, and where scale and bias start, are ours, for thousands
    of pairs: the best of those that `benchmarks/best.toml` tries on validation. The paper has
    gated layers and millions of pairs, and batches of 32,768, in which the log odds of a pair are
    its bias of -10; in batches of hundreds they are about -5, and few steps leave scale and bias
    near their start.
    """
    return Recipe(
        name="sail",
        aligner=Part("gradient"),
        summary="linear or gated alignment layers, trained by the sigmoid loss",
        paper="arXiv:2412.04616",
        dim=512,
        adapter=Part("sail", {"layer": "linear", "width_factor": 1}),
        mixup=Part("none"),
        objective=Part("sail", {"scale": 10.0, "bias": -5.0}),
        optimiser=Part("lion"),
        training=Training(
            epochs=30, lr=3e-4, weight_decay=1e-4, decay="all", schedule="cosine", patience=8
        ),
        scorer=Part("cosine"),
    )


def alignment_probing() -> Recipe:
    """Alignment probing (Zhang et al., 2025): only linear layers are trained, so that recall tells
    of the encoders. For `fusemix rank --recipe`.

    The paper trains on CC3M, 100 epochs at a rate of 1e-5, and measures retrieval on COCO; here it
    is the validation split, and the settings are those of `sail`.
    """
    return replace(
        sail(),
        name="alignment-probing",
        summary="linear alignment layers: how well two encoders can be aligned",
        dim=2048,
        adapter=Part("sail", {"layer": "linear"}),
    )
