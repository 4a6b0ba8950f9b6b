"""A run, from its plan to a fused model: encode, choose rows, fit, measure, save."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusemix_core.config import Recipe, Training
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.devices import resolve_device
from fusemix_core.disk import explained
from fusemix_core.engine.checkpoint import resumed_precision
from fusemix_core.engine.distributed import from_first, in_turn, joined
from fusemix_core.engine.precision import precision_of
from fusemix_core.errors import DivergedError
from fusemix_core.evaluation.examples import Retrieved
from fusemix_core.fused import FusedModel
from fusemix_core.gathering import rank
from fusemix_core.interfaces import Adapter, Callback, Encoder, FitContext, PairedLatents
from fusemix_core.jobs.usage import search_command, usage
from fusemix_core.measured import Measured
from fusemix_core.reports.run import report_run
from fusemix_core.runs.adapters import fit_adapters
from fusemix_core.runs.answers import surest_wrong, write_answers, write_splits
from fusemix_core.runs.begun import keep_data
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.encode_plan import encode_plan, token_modalities
from fusemix_core.runs.environment import environment
from fusemix_core.runs.facts import facts_table
from fusemix_core.runs.folder import ADVICE, MetricsLog, RunFolder
from fusemix_core.runs.fused import notices_of
from fusemix_core.runs.measure import Measurement, draw_examples, measure_run
from fusemix_core.runs.plan import Plan
from fusemix_core.runs.rates import Rates, fit_rate_key
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.rows import check_latents, training_rows
from fusemix_core.runs.selection import UNIFORM, write_chosen
from fusemix_core.sections import Section


@dataclass
class RunResult:
    """The outcome of a run. `results` is the content of results.json (`failed` in it: evaluator →
    message), `examples` hold item numbers of the dataset, `usage` is the Python that loads the
    model, `search` the command that searches the data, `sections` are what each evaluator shows."""

    folder: RunFolder
    model: FusedModel
    results: dict[str, Any]
    encoded: Encoded
    examples: list[Retrieved]
    usage: str
    search: str
    sections: dict[str, list[Section]] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A run under way in this process, which is the `first` or one of its helpers. `precision` is
    what the recipe trains in, None if it does not train."""

    plan: Plan
    folder: RunFolder
    device: torch.device
    resume: bool
    reporter: Reporter
    objects: Mapping[str, Encoder]
    environment: dict[str, Any]
    first: bool
    precision: str | None = None


@dataclass(frozen=True)
class Fit:
    """The result of a fit: adapters by modality, on these rows, in so many seconds; and why it
    ended before its time, if it did."""

    adapters: dict[str, Adapter]
    train: PairedLatents
    seconds: float
    cut_short: str = ""


class CutShort(Callback):
    """Remembers why a fit ended before its time; empty if it did not."""

    why = ""

    def on_cut_short(self, why: str) -> None:
        self.why = why


def run_plan(
    plan: Plan,
    out: str | Path,
    *,
    resume: bool = False,
    reporter: Reporter | None = None,
    objects: Mapping[str, Encoder] | None = None,
) -> RunResult | None:
    """Carry out a plan in the folder `out`.

    Args:
        plan: what to do.
        out: the run's folder.
        resume: go on with the run that is there.
        reporter: gets the progress.
        objects: modality → loaded encoder, in place of the plan's own.

    Returns:
        The outcome of the run; None in all processes but the first.
    """
    with joined(resolve_device(plan.config.device)) as device:
        run = start(plan, out, device, resume, reporter or Reporter(), objects or {})
        encoded = encode(run)
        context = fit_context(run, encoded)
        encoded = choose_rows(run, encoded, context)
        fitted = fit(run, encoded, context)
    return finish(run, encoded, fitted) if run.first else None


def start(
    plan: Plan,
    out: str | Path,
    device: torch.device,
    resume: bool,
    reporter: Reporter,
    objects: Mapping[str, Encoder],
) -> Run:
    """Make the run's folder, or take it up."""
    facts, checkpoints = environment(), RunFolder(out).checkpoints if resume else None
    precision = trained_in(plan.config.recipe, device, checkpoints)

    def started() -> str:
        folder = RunFolder(out)
        folder.start(plan.config, resume)
        keep_data(folder, plan.dataset, plan.config.private)
        folder.write_json(folder.environment, facts)
        return str(folder.path)

    first = rank() == 0
    folder = RunFolder(from_first(started))
    reporter = reporter if first else Reporter()
    return Run(plan, folder, device, resume, reporter, objects, facts, first, precision)


def trained_in(recipe: Recipe, device: torch.device, checkpoints: Path | None) -> str | None:
    """The name of the precision that the recipe trains in; None if it does not train.

    Args:
        checkpoints: those that it is resumed from.
    """
    if recipe.objective is None:
        return None
    name = resumed_precision((recipe.training or Training()).precision, checkpoints)
    return precision_of(name, device).name


def encode(run: Run) -> Encoded:
    """The latents of the data, by the encoders that the base was fitted to."""
    plan = run.plan
    encoded = in_turn(
        lambda: encode_plan(
            plan,
            run.device,
            run.folder,
            run.reporter,
            {**run.objects, **plan.base.loaded()},
            dtypes=plan.base.dtypes(),
            ragged=token_modalities(plan),
            first=run.first,
        )
    )
    plan.base.check(encoded.extractions)
    check_latents(encoded.dataset, encoded.tables)
    return encoded


def fit_context(run: Run, encoded: Encoded) -> FitContext:
    """The run, as selectors and aligners see it."""
    return FitContext(
        device=run.device,
        seed=run.plan.config.seed,
        checkpoints=run.folder.checkpoints,
        resume=run.resume,
        callbacks=[MetricsLog(run.folder.metrics), run.reporter] if run.first else [],
        fixed=run.plan.base.fixed_adapters(encoded.tables),
        latents=encoded.digest,
    )


def choose_rows(run: Run, encoded: Encoded, context: FitContext) -> Encoded:
    """`encoded` with the training rows that the recipe is fitted to; those that it chose are listed
    in the run's folder."""
    recipe, dataset = run.plan.config.recipe, encoded.dataset
    if recipe.pairs is not None:
        run.reporter.stage(f"Choosing pairs ({(recipe.selector or UNIFORM).name})")
    rows = training_rows(recipe, encoded.paired("train"), context, run.reporter)
    chosen = dataset.splits["train"][rows.numpy()]
    if recipe.pairs is not None and run.first:
        with explained(f"{run.folder.chosen}", ADVICE):
            write_chosen(run.folder.chosen, dataset, chosen)
    return dataclasses.replace(encoded, dataset=dataset.with_split("train", np.sort(chosen)))


def fit(run: Run, encoded: Encoded, context: FitContext) -> Fit:
    """Fit the recipe; fixed adapters must come out as they were."""
    recipe = run.plan.config.recipe
    run.reporter.stage(f"Fitting ({recipe.name})")
    began, stopped = time.monotonic(), CutShort()
    context = dataclasses.replace(context, callbacks=[*context.callbacks, stopped])
    try:
        adapters = fit_adapters(recipe, encoded, context)
    except DivergedError as error:
        if run.first:
            list_batch(error, encoded.dataset, run.folder, run.plan.config.private)
        raise
    return Fit(adapters, encoded.paired("train"), time.monotonic() - began, stopped.why)


def list_batch(
    error: DivergedError, dataset: PairedDataset, folder: RunFolder, private: bool = False
) -> None:
    """List the items of the batch that the error is about in the run's folder, and say so in it. If
    it is `private`, by their rows only."""
    if not error.items:
        return
    lines = []
    for modality, ids in error.items.items():
        items = dataset.items[modality]
        for i in ids:
            path, row = items.origin[i]
            shown = {} if private else {"item": items.describe(i)}
            lines.append({"modality": modality, "path": path, "row": row, **shown})
    folder.write_json(folder.failed_batch, lines)
    error.message += f" Its items are listed in {folder.failed_batch}."


def finish(run: Run, encoded: Encoded, fitted: Fit) -> RunResult:
    """Measure what was fitted, and save the model, the report and the results."""
    plan, folder = run.plan, run.folder
    key = fit_rate_key(plan.config.recipe.name, run.device.type)
    Rates().record(key, len(encoded.dataset.splits["train"]), fitted.seconds)

    run.reporter.stage("Measuring")
    measured = measure_run(
        plan,
        encoded,
        fitted.train,
        fitted.adapters,
        run.device,
        run.objects,
        run.reporter,
        save=lambda model: model.save_pretrained(folder.model),
    )
    results = results_of(plan, encoded, fitted, measured)
    if run.precision is not None:
        results["precision"] = run.precision

    run.reporter.stage("Saving")
    model = measured.model
    model.save_pretrained(folder.model)
    found, sure = examples_of(measured, plan.config.private)
    write_answers(folder, measured.answers, measured.shown, encoded.dataset, plan.config.private)
    write_splits(folder, encoded.dataset)
    a, b = (plan.fixed[0], plan.added[0]) if plan.added else model.modalities[:2]
    load = usage(model, folder.model, encoded.dataset, (a, b), plan.config.encoders)
    failed = measured.failed | report_run(
        folder, plan, encoded, measured, found, sure, results, run.environment, load
    )
    if failed:
        results["failed"] = {name: error.message for name, error in failed.items()}
    folder.write_json(folder.results, results)
    if plan.config.private:  # they contain the state of a fit, such as a queue of embeddings
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
    search = search_command(model, folder.path, encoded.dataset, plan.config.encoders)
    return RunResult(folder, model, results, encoded, found, load, search, measured.sections)


def results_of(plan: Plan, encoded: Encoded, fitted: Fit, measured: Measurement) -> dict[str, Any]:
    """The content of results.json."""
    model, dataset = measured.model, encoded.dataset
    parts = {m: model.adapter_part(m) for m in model.modalities}
    learnt = {m: list(e.learnt) for m, e in plan.encoders.items() if e.learnt}
    return {
        "pairs": {name: len(rows) for name, rows in dataset.splits.items()},
        "unpaired": {m: len(ids) for m, ids in dataset.unpaired.items()},
        "facts": facts_table(dataset.facts, plan.config.data),
        "rejected": len(dataset.rejected),
        **({"private": True} if plan.config.private else {}),
        **notices_of(plan, encoded).as_dict(),
        **({"learnt": learnt} if learnt else {}),
        "fit_seconds": round(fitted.seconds, 2),
        **({"cut_short": fitted.cut_short} if fitted.cut_short else {}),
        **measured.results,
        "adapters": {m: {"name": p.name, "options": p.options} for m, p in parts.items()},
    }


def examples_of(measured: Measurement, private: bool) -> tuple[list[Retrieved], list[Retrieved]]:
    """Drawn retrievals, and wrong ones with the highest scores; a private run shows none."""
    if private:
        return [], []
    shown = measured.shown
    drawn, sure = draw_examples(shown), surest_wrong(measured.answers, shown)
    return with_item_numbers(drawn, shown), with_item_numbers(sure, shown)


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
