"""The fused model that a run leaves, with its facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusemix_core.config import Part, to_dict
from fusemix_core.fused import EncoderInfo, FusedModel
from fusemix_core.interfaces import Adapter, Encoder, Scorer, dim_in
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.extended import record
from fusemix_core.runs.plan import Plan


def fused_model(
    plan: Plan,
    encoded: Encoded,
    adapters: Mapping[str, Adapter],
    scorer: tuple[Part, Scorer],
    results: Mapping[str, Any],
    objects: Mapping[str, Encoder],
) -> FusedModel:
    """The fused model of a run, with its encoders ready to load."""
    infos = {
        m: EncoderInfo.of(
            spec,
            modality=m,
            dim=dim_in(adapters[m], encoded.tables[m]),
            fingerprint=encoded.extractions[m].fingerprint,
            view=plan.views[m],
            dtype=plan.config.dtype,
        )
        for m, spec in plan.specs.items()
        if m in plan.added or plan.model is None
    }
    split = "test" if "test" in results else "validation"
    if plan.model is not None:
        return plan.model.extended(
            {m: adapters[m] for m in plan.added},
            infos,
            scorer[1],
            sources={m: objects.get(m, plan.specs[m]) for m in plan.added},
            **record(plan.config, plan.added, results, split),
        )
    return FusedModel(
        adapters,
        infos,
        scorer[1],
        scorer_part=scorer[0],
        sources={m: objects.get(m, spec) for m, spec in plan.specs.items()},
        recipe=to_dict(plan.config.recipe),
        data={"pairs": results["pairs"], "split": split},
        metrics={k: v for k, v in results[split].items() if k.startswith("retrieval")},
        device=plan.config.device,
    )
