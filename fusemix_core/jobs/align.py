"""The main job: extract, fit, choose, measure, save. One function from a plan to a fused model."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from fusemix_core.config import Recipe, RunConfig
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.media import medium
from fusemix_core.devices import resolve_device
from fusemix_core.digests import digest_modules
from fusemix_core.disk import explained
from fusemix_core.engine.distributed import from_first, in_turn, joined
from fusemix_core.errors import ConfigError, DivergedError
from fusemix_core.evaluation.examples import Retrieved
from fusemix_core.fused import FusedModel
from fusemix_core.gathering import rank
from fusemix_core.interfaces import Adapter, Encoder, FitContext, PairedLatents, takes_tokens
from fusemix_core.measured import Measured
from fusemix_core.registry import registry
from fusemix_core.reports.of_run import report_run
from fusemix_core.runs.config import build_config, chosen_by
from fusemix_core.runs.encode import Encoded, Encoding, encode_dataset
from fusemix_core.runs.environment import environment
from fusemix_core.runs.extended import extended_model
from fusemix_core.runs.facts import facts_table
from fusemix_core.runs.fixed import check_unchanged, fixed_adapters
from fusemix_core.runs.folder import ADVICE, MetricsLog, RunFolder
from fusemix_core.runs.inputs import EncoderInput, data_table, encoder_names
from fusemix_core.runs.measure import draw_examples, measure_run
from fusemix_core.runs.plan import Plan, make_plan
from fusemix_core.runs.rates import Rates, fit_rate_key
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.rows import check_splits, rows_to_fit, training_rows
from fusemix_core.runs.selection import UNIFORM, write_chosen
from fusemix_core.sections import Section


@dataclass
class RunResult:
    """What a run leaves. `results` is the content of results.json (`failed` in it: evaluator →
    message), `examples` hold item numbers of the dataset, `usage` is the Python that loads the
    model, `sections` are what each evaluator shows."""

    folder: RunFolder
    model: FusedModel
    results: dict[str, Any]
    encoded: Encoded
    examples: list[Retrieved]
    usage: str
    sections: dict[str, list[Section]] = field(default_factory=dict)


def align(
    encoders: Mapping[str, EncoderInput],
    data: str | Path | Mapping[str, Any],
    *,
    recipe: str | Mapping[str, Any] = "auto",
    overrides: Sequence[str] = (),
    select: str | None = None,
    pairs: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    **settings: Any,
) -> RunResult | None:
    """Align frozen encoders on paired data; what `fusemix align` does, from Python.

    Args:
        encoders: modality → registered name, Encoder class with a `spec`, or loaded Encoder.
        data: A path, or the fields of `DataConfig`.
        recipe: A name, or a table of a name and changed fields.
        overrides: `key=value` settings of the recipe, such as `training.epochs=20`.
        select: The selector that chooses the training pairs; its options are overrides
            (`selector.by=text`).
        pairs: How many training pairs to fit on, by default all.
        out: The run's folder, by default a new one under `runs/`.
        resume: Go on with the run in `out`.
        reporter: Is told of progress.
        **settings: `views` (modality → view of its encoder), `fixed` (modalities that keep their
            latents as embeddings), `seed`, `device`, `dtype`, `store_dtype`, `encode_batch`,
            `backend`.

    Returns:
        The run's folder, model and results; None in all processes but the first, if torchrun
        started several.

    Raises:
        FusemixError: For anything that the caller can mend.

    Example:

        done = align({"image": "efficientnet-lite0", "text": "minilm"}, "pairs.csv")
        done.results["test"]["retrieval"]["mean_r1"]
    """
    names, objects = encoder_names(encoders)
    values = {"encoders": names, "data": data_table(data), "recipe": recipe, **settings}
    if isinstance(values.get("fixed"), str):
        values["fixed"] = [values["fixed"]]
    config, specs = build_config(values, [*chosen_by(select, pairs), *overrides])
    plan = make_plan(config, specs)
    return run_plan(plan, out or default_out(), resume=resume, reporter=reporter, objects=objects)


def extend(
    model: str | Path | FusedModel,
    encoders: Mapping[str, EncoderInput],
    data: str | Path | Mapping[str, Any],
    *,
    recipe: str | Mapping[str, Any] = "auto",
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    **settings: Any,
) -> RunResult | None:
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
            f"The model has an encoder of {own[0]}.", "Give it another where the model is loaded."
        )
    extends = model.name if loaded is not None else os.fspath(model)
    values = {"encoders": names, "data": data_table(data), "recipe": recipe, "extends": extends}
    config, specs = build_config({**values, **settings}, list(overrides))
    if loaded is None and objects:
        loaded = extended_model(config, {**specs, **objects})
    plan = make_plan(config, specs, loaded)
    return run_plan(plan, out or default_out(), resume=resume, reporter=reporter, objects=objects)


def default_out() -> Path:
    """A folder under `runs/` that is not there yet, named for the time."""
    now = time.strftime("%Y-%m-%d-%H%M%S")
    names = chain([now], (f"{now}-{number}" for number in count(2)))
    return next(path for name in names if not (path := Path("runs") / name).exists())


def run_plan(
    plan: Plan,
    out: str | Path,
    *,
    resume: bool = False,
    reporter: Reporter | None = None,
    objects: Mapping[str, Encoder] | None = None,
) -> RunResult | None:
    """Carry out a plan in the folder `out`; None in all processes but the first."""
    config, reporter = plan.config, reporter or Reporter()
    facts = environment()
    with joined(resolve_device(config.device)) as device:
        first = rank() == 0
        if not first:
            reporter = Reporter()
        folder = RunFolder(from_first(lambda: started(out, config, resume, facts)))

        reporter.stage("Encoding")
        how = Encoding(
            device,
            config.dtype,
            config.store_dtype,
            config.encode_batch,
            plan.views,
            config.backend,
        )
        loaded = loaded_encoders(plan, objects or {})
        encoded = in_turn(
            lambda: encode_dataset(
                plan.dataset, plan.specs, how, reporter, loaded, ragged=token_modalities(plan)
            )
        )
        if first:
            with explained(f"{folder.rejected}", ADVICE):
                encoded.dataset.write_rejected(folder.rejected)
        encoded.dataset.check_bad(config.data.max_bad)
        for modality in plan.fixed if plan.model is not None else ():
            plan.model.encoder(modality).check(encoded.extractions[modality].fingerprint)
        fixed = fixed_adapters(plan.model, plan.fixed, encoded.tables)
        context = FitContext(
            device=device,
            seed=config.seed,
            checkpoints=folder.checkpoints,
            resume=resume,
            callbacks=[MetricsLog(folder.metrics), reporter] if first else [],
            fixed=fixed,
            latents=encoded.digest,
        )
        if config.recipe.pairs is not None:
            reporter.stage(f"Choosing pairs ({(config.recipe.selector or UNIFORM).name})")
        taken = training_rows(config.recipe, encoded.paired("train"), context, reporter)
        taken = encoded.dataset.splits["train"][taken.numpy()]
        encoded.dataset = encoded.dataset.with_split("train", np.sort(taken))
        if config.recipe.pairs is not None and first:
            with explained(f"{folder.chosen}", ADVICE):
                write_chosen(folder.chosen, encoded.dataset, taken)
        train, validation = encoded.paired("train"), encoded.paired("validation")
        validation = validation.select(rows_to_fit(validation, fixed))
        check_splits(train, validation)

        reporter.stage(f"Fitting ({config.recipe.name})")
        began = time.monotonic()
        try:
            adapters = fit(config.recipe, train, validation, context)
        except DivergedError as error:
            if first:
                list_batch(error, encoded.dataset, folder)
            raise
        seconds = time.monotonic() - began
    if not first:
        return None
    key = fit_rate_key(config.recipe.name, device.type)
    Rates().record(key, len(encoded.dataset.splits["train"]), seconds)

    reporter.stage("Measuring")
    measured = measure_run(plan, encoded, train, adapters, device, objects or {})
    results = {
        "pairs": {name: len(rows) for name, rows in encoded.dataset.splits.items()},
        "unpaired": {m: len(ids) for m, ids in encoded.dataset.unpaired.items()},
        "facts": facts_table(encoded.dataset.facts, config.data),
        "rejected": len(encoded.dataset.rejected),
        "fit_seconds": round(seconds, 2),
        **measured.results,
    }

    reporter.stage("Saving")
    model = measured.model
    model.save_pretrained(folder.model)
    parts = {m: model.adapter_part(m) for m in model.modalities}
    results["adapters"] = {m: {"name": p.name, "options": p.options} for m, p in parts.items()}
    found = with_item_numbers(draw_examples(measured.shown), measured.shown)
    pair = (plan.fixed[0], plan.added[0]) if plan.added else model.modalities[:2]
    load = usage(model, folder.model, encoded.dataset, pair)
    failed = measured.failed | report_run(
        folder, plan, encoded, measured, found, results, facts, load
    )
    if failed:
        results["failed"] = {name: error.message for name, error in failed.items()}
    folder.write_json(folder.results, results)
    return RunResult(folder, model, results, encoded, found, load, measured.sections)


def loaded_encoders(plan: Plan, objects: Mapping[str, Encoder]) -> dict[str, Encoder]:
    """The encoders that are loaded already, by modality: the caller's, and the extended model's."""
    loaded = dict(objects)
    for modality in plan.fixed if plan.model is not None else ():
        if (given := plan.model.encoder(modality).given) is not None:
            loaded[modality] = given
    return loaded


def started(out: str | Path, config: RunConfig, resume: bool, facts: Mapping[str, Any]) -> str:
    """The path of a run's folder, made or taken up."""
    folder = RunFolder(out)
    folder.start(config, resume)
    folder.write_json(folder.environment, facts)
    return str(folder.path)


def token_modalities(plan: Plan) -> list[str]:
    """The modalities whose items may differ in length: their adapters take tokens.

    With a closed-form start none may that is to be fitted: its maps take rows.
    """
    recipe = plan.config.recipe

    def takes(modality: str) -> bool:
        if modality in plan.fixed:
            return plan.model is not None and takes_tokens(plan.model.adapters[modality])
        part = recipe.adapter_of(modality) if recipe.start is None else None
        return part is not None and "tokens" in registry.uses("adapter", part)

    return [m for m in plan.encoders if takes(m)]


def fit(
    recipe: Recipe, train: PairedLatents, validation: PairedLatents, context: FitContext
) -> dict[str, Adapter]:
    """The adapters that the recipe's aligner fits, and those that are fixed as they were."""
    aligner = registry.build("aligner", recipe.aligner)
    digests = {m: digest_modules([adapter]) for m, adapter in context.fixed.items()}
    adapters = aligner.fit(train, validation, recipe, context)
    check_unchanged(recipe.aligner.name, adapters, digests)
    return adapters


def list_batch(error: DivergedError, dataset: PairedDataset, folder: RunFolder) -> None:
    """List the items of the batch that the error is about in the run's folder, and say so in it."""
    if not error.items:
        return
    lines = []
    for modality, ids in error.items.items():
        items = dataset.items[modality]
        for i in ids:
            path, row = items.origin[i]
            shown = str(items.describe(i))
            lines.append({"modality": modality, "path": path, "row": row, "item": shown})
    folder.write_json(folder.failed_batch, lines)
    error.message += f" Its items are listed in {folder.failed_batch}."


def with_item_numbers(found: list[Retrieved], split: Measured) -> list[Retrieved]:
    """The same retrievals with the numbers that items have in the dataset."""
    return [
        dataclasses.replace(
            r,
            item=int(split.ids[r.query][r.item]),
            hits=tuple(
                dataclasses.replace(h, item=int(split.ids[r.target][h.item])) for h in r.hits
            ),
            partners=tuple(int(split.ids[r.target][p]) for p in r.partners),
        )
        for r in found
    ]


def usage(model: FusedModel, path: Path, dataset: PairedDataset, pair: tuple[str, str]) -> str:
    """The lines of Python that load a model and search one modality of a pair by the other."""
    a, b = pair
    if medium(model.encoders[a].takes).inline:
        a, b = b, a
    return (
        "from fusemix_core import FusedModel\n"
        f'model = FusedModel.from_pretrained("{path}")\n'
        f'gallery = model.encode("{a}", {_example_items(model, a, dataset, 2)})\n'
        f'queries = model.encode("{b}", {_example_items(model, b, dataset, 1)})\n'
        f'print(model.similarity(queries, gallery, "{b}", "{a}"))'
    )


def _example_items(model: FusedModel, modality: str, dataset: PairedDataset, count: int) -> str:
    """A list of items as Python, such as a user has; of what is no text, picture or sound, some of
    the data's own."""
    if modality == "text":
        return '["what you look for"]'
    how = medium(model.encoders[modality].takes)
    if not how.inline and (examples := how.example(count)):
        return json.dumps(examples)
    items = dataset.items[modality]
    own = [items.describe(i) for i in range(min(count, len(items)))]
    return f"[{', '.join(json.dumps(item, ensure_ascii=False) for item in own)}]"
