"""fusemix: frozen, pre-trained unimodal encoders, one multimodal space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fusemix_core.version import __version__ as __version__

if TYPE_CHECKING:
    from fusemix_core.benchmark.fusers import bench_fusers
    from fusemix_core.benchmark.rerankers import bench_rerankers
    from fusemix_core.benchmark.run import bench
    from fusemix_core.estimators import FusionClassifier, FusionRegressor, side_by_side  # noqa: F401
    from fusemix_core.fused import FusedModel
    from fusemix_core.generation.loading import load_generator
    from fusemix_core.interfaces import (
        Adapter,
        Aligner,
        Callback,
        Correction,
        Encoder,
        Evaluator,
        Fitted,
        Fuser,
        Generator,
        Index,
        Medium,
        Mixup,
        Objective,
        Reader,
        Rejected,
        Reranker,
        Row,
        Scorer,
        Selector,
        Targets,
        Task,
        TokenAdapter,
    )
    from fusemix_core.jobs.align import align
    from fusemix_core.jobs.encode import encode
    from fusemix_core.jobs.extend import extend
    from fusemix_core.jobs.fuse import fuse
    from fusemix_core.jobs.rank import rank
    from fusemix_core.jobs.rerank import rerank
    from fusemix_core.jobs.select import select
    from fusemix_core.predictor import Predictor
    from fusemix_core.reranked import RerankModel
    from fusemix_core.saved.model import SavedModel, load
    from fusemix_core.specs import (
        ComponentSpec,
        EncoderSpec,
        FamilySpec,
        GeneratorSpec,
        ModalitySpec,
    )
    from fusemix_core.trust import trust_remote_code

_HOMES = {
    "align": "fusemix_core.jobs.align",
    "bench": "fusemix_core.benchmark.run",
    "bench_fusers": "fusemix_core.benchmark.fusers",
    "bench_rerankers": "fusemix_core.benchmark.rerankers",
    "extend": "fusemix_core.jobs.extend",
    "fuse": "fusemix_core.jobs.fuse",
    "encode": "fusemix_core.jobs.encode",
    "rank": "fusemix_core.jobs.rank",
    "rerank": "fusemix_core.jobs.rerank",
    "select": "fusemix_core.jobs.select",
    "FusedModel": "fusemix_core.fused",
    **dict.fromkeys(
        ["FusionClassifier", "FusionRegressor", "side_by_side"], "fusemix_core.estimators"
    ),
    "Predictor": "fusemix_core.predictor",
    "RerankModel": "fusemix_core.reranked",
    "SavedModel": "fusemix_core.saved.model",
    "load": "fusemix_core.saved.model",
    "load_generator": "fusemix_core.generation.loading",
    "trust_remote_code": "fusemix_core.trust",
    **dict.fromkeys(
        ["ComponentSpec", "EncoderSpec", "FamilySpec", "GeneratorSpec", "ModalitySpec"],
        "fusemix_core.specs",
    ),
    **dict.fromkeys(
        [
            "Adapter",
            "Aligner",
            "Callback",
            "Correction",
            "Encoder",
            "Evaluator",
            "Fitted",
            "Fuser",
            "Generator",
            "Mixup",
            "Objective",
            "Reranker",
            "Scorer",
            "Selector",
            "Targets",
            "Task",
            "TokenAdapter",
        ],
        "fusemix_core.interfaces",
    ),
    "Index": "fusemix_core.vectors",
    "Medium": "fusemix_core.data.media",
    **dict.fromkeys(["Reader", "Row"], "fusemix_core.data.rows"),
    "Rejected": "fusemix_core.data.dataset",
}

# Without the estimators, which need an extra: `from fusemix_core import *` works without it.
__all__ = [
    "Adapter",
    "Aligner",
    "Callback",
    "ComponentSpec",
    "Correction",
    "Encoder",
    "EncoderSpec",
    "Evaluator",
    "FamilySpec",
    "Fitted",
    "FusedModel",
    "Fuser",
    "Generator",
    "GeneratorSpec",
    "Index",
    "Medium",
    "Mixup",
    "ModalitySpec",
    "Objective",
    "Predictor",
    "Reader",
    "Rejected",
    "RerankModel",
    "Reranker",
    "Row",
    "SavedModel",
    "Scorer",
    "Selector",
    "Targets",
    "Task",
    "TokenAdapter",
    "align",
    "bench",
    "bench_fusers",
    "bench_rerankers",
    "encode",
    "extend",
    "fuse",
    "load",
    "load_generator",
    "rank",
    "rerank",
    "select",
    "trust_remote_code",
]


_ALIASES = {"embed": "encode"}
"""Earlier names, which go on working."""


def __getattr__(name: str) -> Any:
    """Public names are imported on first use, so that `import fusemix_core` stays light."""
    name = _ALIASES.get(name, name)
    if name not in _HOMES:
        raise AttributeError(f"module 'fusemix_core' has no attribute '{name}'")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
