"""Aligning encoders on paired data: from names and tables to a fused model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusemix_core.jobs.run import RunResult, run_plan
from fusemix_core.runs.config import build_config, chosen_by
from fusemix_core.runs.folder import default_out
from fusemix_core.runs.inputs import DataInput, EncoderInput, encoder_names, table_of
from fusemix_core.runs.plan import make_plan
from fusemix_core.runs.reporter import Reporter


def align(
    encoders: Mapping[str, EncoderInput],
    data: DataInput | None = None,
    *,
    recipe: str | Mapping[str, Any] = "auto",
    overrides: Sequence[str] = (),
    select: str | None = None,
    pairs: int | None = None,
    budget: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    **settings: Any,
) -> RunResult | Any:  # None only where torchrun starts several
    """Align frozen encoders on paired data; what `fusemix align` does, from Python.

    Args:
        encoders: modality → registered name, Encoder class with a `spec`, loaded Encoder, or your
            own latents as an array or tensor `[n, d]`.
        data: A path, the fields of `DataConfig`, a DataFrame, column → list, or a
            `datasets.Dataset`. Own latents need none: row i of one is paired with row i of the
            other. With data, their items are the numbers of rows from 0.
        recipe: A name, or a table of a name and changed fields.
        overrides: `key=value` settings of the recipe, such as `training.epochs=20`.
        select: The selector that chooses the training pairs; its options are overrides
            (`selector.by=text`).
        pairs: How many training pairs to fit on, by default all.
        budget: When to stop fitting with the best model so far: a time such as `"10m"`, or
            `"2000 steps"`.
        out: The run's folder, by default a new one under `runs/`.
        resume: Go on with the run in `out`.
        reporter: Gets the progress.
        **settings: `views` (modality → view of its encoder), `fixed` (modalities that keep their
            latents as embeddings), `seed`, `device`, `dtype`, `store_dtype`, `encode_batch`,
            `backend`, `decode_processes`, `store` (the object store to keep latents in, such as
            `s3://bucket/prefix`, by default `$FUSEMIX_STORE`, else the folder `$FUSEMIX_HOME`),
            `evaluators`, `baselines` (recipes, and folders of models, to compare with), `private`.

    Returns:
        The run's folder, model and results; None in all processes but the first, if torchrun
        started several.

    Raises:
        FusemixError: For anything that the caller can mend.

    Example:

        done = align({"image": "efficientnet-lite0", "text": "minilm"}, "pairs.csv")
        done.results["test"]["retrieval"]["mean_r1"]

        align({"image": image_latents, "text": text_latents})
    """
    names, objects = encoder_names(encoders)
    table = table_of(data, objects, len(names))
    values = {"encoders": names, "data": table, "recipe": recipe, **settings}
    if isinstance(values.get("fixed"), str):
        values["fixed"] = [values["fixed"]]
    config, specs = build_config(values, [*chosen_by(select, pairs, budget), *overrides])
    plan = make_plan(config, specs, tell=reporter.note if reporter else None)
    return run_plan(plan, out or default_out(), resume=resume, reporter=reporter, objects=objects)
