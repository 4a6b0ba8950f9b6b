"""ARL: a graph of knowledge between the modalities. Metadata only; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec, FamilySpec

PAPER = "https://arxiv.org/abs/2209.07118"


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """The objective and the fuser."""
    return [
        ComponentSpec(
            kind="objective",
            name="arl",
            target="fusemix_arl.objective:Arl",
            summary="another objective, and each side predicts the entities that its text mentions",
            options={
                "triples": "",
                "fact": "words",
                "objective": "infonce",
                "options": {},
                "weight": 1.0,
                "graph": "attention",
                "reverse": False,
                "width": 64,
                "heads": 8,
                "head_width": 16,
                "dropout": 0.0,
                "epochs": 100,
                "margin": 5.0,
            },
            uses=("facts",),
            wraps="objective",
            paper=PAPER,
        ),
        ComponentSpec(
            kind="fuser",
            name="reason",
            target="fusemix_arl.fuser:ReasonFuser",
            summary="layers in which a text's tokens see an image and the entities it mentions",
            options={
                "depth": 2,
                "width": 96,
                "knowledge_width": 48,
                "heads": 4,
                "dropout": 0.1,
                "mix": 0.0,
                "drop": None,
                "training": {},
            },
            uses=("tokens",),
            paper=PAPER,
        ),
    ]


@hookimpl
def fusemix_encoders() -> Iterable[FamilySpec]:
    """Entities that a text mentions, as an encoder of texts."""
    return [
        FamilySpec(
            prefix="mentions",
            resolve="fusemix_arl.mentions:resolve",
            summary="the entities of a file of triples that a text mentions, embedded by TransE",
            example="mentions:triples.csv",
        )
    ]
