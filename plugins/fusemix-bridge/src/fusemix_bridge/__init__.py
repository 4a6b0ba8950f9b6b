"""BridgeTower and ManagerTower: cross-modal layers that look at every layer of frozen encoders.
Metadata only; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """The fuser, the re-ranker, and Manager's mixture of layers as an adapter."""
    return [
        ComponentSpec(
            kind="fuser",
            name="cross",
            aliases=("bridge-tower", "manager-tower"),
            target="fusemix_bridge.fuser:CrossFuser",
            summary="cross-modal layers on tokens, fed from all layers of the frozen encoders",
            options={
                "manager": "bridge",
                "layers": 1,
                "depth": 2,
                "width": 128,
                "heads": 4,
                "dropout": 0.1,
                "mix": 0.4,
                "drop": None,
                "training": {},
            },
            uses=("tokens",),
            paper="https://arxiv.org/abs/2206.08657",
        ),
        ComponentSpec(
            kind="reranker",
            name="cross",
            aliases=("bridge-tower", "manager-tower"),
            target="fusemix_bridge.reranker:CrossReranker",
            summary="cross-modal layers on tokens of both items, fed from all encoder layers",
            options={
                "manager": "bridge",
                "layers": None,
                "depth": 2,
                "width": 128,
                "heads": 4,
                "dropout": 0.1,
            },
            paper="https://arxiv.org/abs/2206.08657",
        ),
        ComponentSpec(
            kind="adapter",
            name="layer-mixer",
            target="fusemix_bridge.mixer:LayerMixer",
            summary="a learnt mixture of an encoder's layers, then a linear map; for view `layers`",
            options={"most": 32, "per_channel": True},
            uses=("tokens",),
            paper="https://arxiv.org/abs/2306.00103",
        ),
    ]
