"""Adding modalities to a fused model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusemix_core.errors import ConfigError
from fusemix_core.fused import FusedModel
from fusemix_core.jobs.run import RunResult, run_plan
from fusemix_core.runs.config import build_config
from fusemix_core.runs.extension import extended_model
from fusemix_core.runs.folder import default_out
from fusemix_core.runs.inputs import DataInput, EncoderInput, data_table, encoder_names
from fusemix_core.runs.plan import make_plan
from fusemix_core.runs.reporter import Reporter


def extend(
    model: str | Path | FusedModel,
    encoders: Mapping[str, EncoderInput],
    data: DataInput,
    *,
    recipe: str | Mapping[str, Any] = "auto",
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    **settings: Any,
) -> RunResult | Any:  # None only where torchrun starts several
    """Add modalities to a fused model without moving its own; what `fusemix extend` does.

    The model's adapters stay as they are and its encoders must be those of the fit; new adapters
    are fitted to their embeddings, at the model's dtype. The model's scorer takes in the new
    modalities (`recipe.scorer` is ignored), so that scores between the model's own stay the same.

    Args:
        model: A run's folder, a model's folder, a hub id, or a loaded model.
        encoders: Those of the modalities to add, as `align` takes them; for a model by name also
            those of its own modalities whose encoders can't be found by their names.
        data: Pairs of new items with items of the model's modalities, as `align` takes them.
        recipe, overrides, out, resume, reporter, **settings: As in `align`.

    Returns:
        The run, whose model is a new one. It is measured in the directions from and to the new
        modalities; `results["never_paired"]` lists those that no training row linked.

    Raises:
        FusemixError: For anything that the caller can mend.

    Example:

        extend("runs/1", {"audio": "whisper-tiny"}, "spoken.csv")
    """
    names, objects = encoder_names(encoders)
    loaded = model if isinstance(model, FusedModel) else None
    if loaded is not None and (own := [m for m in names if m in loaded.modalities]):
        raise ConfigError(
            f"The model has an encoder of {own[0]}.", "Give it another when the model is loaded."
        )
    extends = model.name if isinstance(model, FusedModel) else os.fspath(model)
    values = {"encoders": names, "data": data_table(data), "recipe": recipe, "extends": extends}
    config, specs = build_config({**values, **settings}, list(overrides))
    if loaded is None and objects:
        loaded = extended_model(config, {**specs, **objects})
    plan = make_plan(config, specs, loaded, reporter.note if reporter else None)
    return run_plan(plan, out or default_out(), resume=resume, reporter=reporter, objects=objects)
