"""The fused model that a run leaves, with its facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fusemix_core.config import Part
from fusemix_core.fused import EncoderInfo, FusedModel
from fusemix_core.interfaces import Adapter, Encoder, Scorer, dim_in
from fusemix_core.runs.base import Fitted, Pair
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.notices import Notices
from fusemix_core.runs.plan import Plan
from fusemix_core.runs.private import OF_MODEL, check_private


def fused_model(
    plan: Plan,
    encoded: Encoded,
    adapters: Mapping[str, Adapter],
    scorer: tuple[Part, Scorer],
    objects: Mapping[str, Encoder],
    unpaired: Sequence[Pair] = (),
) -> FusedModel:
    """The fused model of a run, with its encoders ready to load, before it is measured.

    `unpaired`: the pairs of modalities that no training row links, of an extended model.
    """
    encoders = {
        m: EncoderInfo.of(
            spec,
            modality=m,
            dim=dim_in(adapters[m], encoded.tables[m]),
            fingerprint=encoded.extractions[m].fingerprint,
            view=plan.views[m],
            dtype=encoded.extractions[m].dtype,
        )
        for m, spec in plan.specs.items()
    }
    splits = encoded.dataset.splits
    data = {
        "pairs": {name: len(rows) for name, rows in splits.items()},
        "split": "test" if len(splits["test"]) else "validation",
    }
    data |= notices_of(plan, encoded).without_folders(plan.config.data.files)
    if plan.config.private:
        data["private"] = OF_MODEL
    sources = {m: objects.get(m, spec) for m, spec in plan.specs.items()}
    fitted = Fitted(adapters, encoders, sources, scorer, data, unpaired)
    model = plan.base.model(plan.config, fitted)
    if plan.config.private:
        check_private(model, "The fitted model")
        model.seen = {}
    return model


def notices_of(plan: Plan, encoded: Encoded) -> Notices:
    """The notices that a run writes of its data. Warnings quote rows: a private run writes none."""
    found = Notices.of(encoded.dataset, [*plan.warnings, *encoded.warnings])
    return replace(found, warnings=plan.private) if plan.config.private else found


def add_metrics(model: FusedModel, plan: Plan, metrics: Mapping[str, Any]) -> None:
    """Record what evaluators found, evaluator → metrics, in the model of a run."""
    plan.base.add_metrics(model, {name: _noted(values) for name, values in metrics.items()})


def _noted(value: Any) -> Any:
    """Metrics without long lists, such as histograms: those are in results.json only."""
    if isinstance(value, Mapping):
        return {k: _noted(v) for k, v in value.items() if not isinstance(v, list) or len(v) < 3}
    return value
