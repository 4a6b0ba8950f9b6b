"""Fusing encoders into a prediction: from names and tables to a predictor."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusemix_core.config import Part, to_dict
from fusemix_core.context import FitContext
from fusemix_core.devices import resolve_device
from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Labelled
from fusemix_core.fusion.candidates import Candidate, fit_candidates
from fusemix_core.fusion.cascade import curves
from fusemix_core.fusion.doubtful import Doubt, doubtful
from fusemix_core.fusion.folds import Fold, folds_of
from fusemix_core.fusion.study import Study, study, study_of_growth, table
from fusemix_core.interfaces import Encoder
from fusemix_core.jobs.grow import check_encoders, fuse_config
from fusemix_core.launch import launched
from fusemix_core.prediction import Task
from fusemix_core.predictor import Predictor, stack_of
from fusemix_core.reports.fuse import report_fuse, sections_of
from fusemix_core.runs.begun import keep_data
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.encode_plan import encode_plan
from fusemix_core.runs.environment import environment
from fusemix_core.runs.exchanged import column_falls
from fusemix_core.runs.folder import (
    MetricsLog,
    RunFolder,
    default_out,
    undefined_as_none,
    write_text,
)
from fusemix_core.runs.fuse_rows import fold_rows, fold_task
from fusemix_core.runs.fusing import (
    FusePlan,
    fusers_of,
    make_fuse_plan,
    target_facts,
)
from fusemix_core.runs.inputs import DataInput, EncoderInput, encoder_names, table_of
from fusemix_core.runs.matching import CLASSES, MATCH
from fusemix_core.runs.notices import Notices
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.scores import write_scores
from fusemix_core.runs.targets import Targeted
from fusemix_core.saved.schema import EncoderInfo
from fusemix_core.sections import Section
from fusemix_core.tasks.conformal import Conformal


@dataclass
class FuseResult:
    """The outcome of `fusemix fuse`. `results` is the content of results.json; `sections` is what
    the report and the terminal show."""

    folder: RunFolder
    predictor: Predictor
    results: dict[str, Any]
    study: Study
    sections: list[Section] = field(default_factory=list)


def fuse(
    encoders: Mapping[str, EncoderInput],
    data: DataInput | None = None,
    *,
    target: str | Sequence[str] | None = None,
    time: str | None = None,
    event: str | None = None,
    task: str | Mapping[str, Any] = "auto",
    fuser: str | Mapping[str, Any] = "auto",
    folds: int = 0,
    extends: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    **settings: Any,
) -> FuseResult:
    """Predict something from several modalities; what `fusemix fuse` does, from Python.

    Args:
        encoders: modality → registered name, Encoder class with a `spec`, loaded Encoder, or your
            own latents as an array or tensor `[n, d]`. One is enough.
        data: A path, the fields of `DataConfig`, a DataFrame, column → list, or a
            `datasets.Dataset`. Any item may be missing.
        target: The column to predict; several are labels.
        time, event: The columns of a survival target, instead.
        task: `classify`, `regress`, …, or a table of a name and options. `auto` sees it from the
            target. `match` has no target: it learns which items belong together.
        fuser: How modalities are combined: `stack`, `block`, …, or a table of a name and options.
            `auto` is whatever is best on validation.
        folds: Cross-validation with so many folds, and a fit to all rows; 0 for the test split.
        extends: A predictor whose fuser is `stack`, by folder or hub id. It gets the new modality
            of `encoders`; its others stay as they are. It was not fitted to the rows of `data`.
        out, resume, reporter, **settings: As in `align`. Settings are `views`, `seed`, `device`,
            `dtype`, `store_dtype`, `encode_batch`, `backend`, `decode_processes` and `store`.

    Returns:
        The run's folder, predictor and results.

    Raises:
        FusemixError: For anything that the caller can mend.

    Example:

        encoders = {"image": "efficientnet-lite0", "text": "minilm"}
        done = fuse(encoders, "shop.csv", target="category")
        done.predictor.predict({"image": ["new.jpg"], "text": [None]})
    """
    names, objects = encoder_names(encoders)
    targets = (target,) if isinstance(target, str) else tuple(target or ())
    name = task if isinstance(task, str) else task.get("name")
    values = {"encoders": names, "task": task, "fuser": fuser, "folds": folds, **settings}
    values["extends"] = None if extends is None else os.fspath(extends)
    values["data"] = own = dict(table_of(data, objects, len(names)))
    if extends is None or targets or time:
        facts, values["targets"] = target_facts(targets, time, event, name)
        own["facts"] = {**own.get("facts", {}), **facts}
    config, specs, former = fuse_config(values)
    plan = make_fuse_plan(config, specs, tell=reporter.note if reporter else None)
    how: dict[str, Any] = {"resume": resume, "reporter": reporter, "objects": objects}
    return run_fuse(plan, out or default_out(), former=former, **how)


def run_fuse(
    plan: FusePlan,
    out: str | Path,
    *,
    resume: bool = False,
    reporter: Reporter | None = None,
    objects: Mapping[str, Encoder] | None = None,
    former: Predictor | None = None,
) -> FuseResult:
    """Carry out a plan in the folder `out`: encode, fit every candidate, choose, measure, save.

    Args:
        plan: what to do.
        out: the run's folder.
        resume: go on with the run that is there. Its latents are kept; the fits are made again.
        reporter: gets the progress.
        objects: modality → loaded encoder, in place of the plan's own.
        former: what gets the plan's last modality, in place of a fit of all candidates.
    """
    if launched().processes > 1:
        raise ConfigError(
            "fusemix fuse runs in one process.", "Start it without torchrun: its fits take seconds."
        )
    reporter, objects = reporter or Reporter(), dict(objects or {})
    device, folder = resolve_device(plan.config.device), RunFolder(out)
    folder.start(plan.config, resume)
    keep_data(folder, plan.dataset, plan.config.private)
    folder.write_json(folder.environment, environment())
    dtypes = {m: info.dtype for m, info in former.encoders.items()} if former else {}
    how: dict[str, Any] = {"dtypes": dtypes, "ragged": list(plan.specs)}
    encoded = encode_plan(plan, device, folder, reporter, objects, **how)
    if former is not None:
        check_encoders(former, encoded)
    targets = dataclasses.replace(plan.targets, dataset=encoded.dataset)
    targets = targets.after(plan.dataset)
    fits = folds_of(encoded.dataset.splits, targets.groups, plan.config.folds, plan.config.seed)
    tasks = [former.task if former else fold_task(targets, fits, fold) for fold in fits]
    rows = [fold_rows(targets, encoded, fold, task) for fold, task in zip(fits, tasks, strict=True)]
    contexts = [
        _context(plan, folder, device, reporter, resume, f"fold-{k}") for k in range(len(fits))
    ]
    reporter.stage("Fitting")
    if former is None:
        fusers = fusers_of(plan.config.fuser, targets.part)
        found = study(rows, fusers, plan.config.fuser.name, contexts, reporter.stage)
    else:
        found = study_of_growth(rows[0], stack_of(former))
    reporter.stage("Measuring")
    final = _final(plan, found, targets, encoded, fits, folder, device, reporter, resume)
    return _finish(plan, encoded, targets, found, final, folder, objects, reporter)


@dataclass(frozen=True)
class Final:
    """The fuser that is kept: its task, its training rows, and the numbers of these."""

    task: Task
    train: Labelled
    rows: np.ndarray
    candidate: Candidate
    stack: Candidate


def _context(
    plan: FusePlan,
    folder: RunFolder,
    device: torch.device,
    reporter: Reporter,
    resume: bool,
    name: str,
) -> FitContext:
    return FitContext(
        device=device,
        seed=plan.config.seed,
        checkpoints=folder.checkpoints / name,
        resume=resume,
        callbacks=[MetricsLog(folder.metrics), reporter],
    )


def _final(
    plan: FusePlan,
    found: Study,
    targets: Targeted,
    encoded: Encoded,
    fits: Sequence[Fold],
    folder: RunFolder,
    device: torch.device,
    reporter: Reporter,
    resume: bool,
) -> Final:
    """The chosen fuser: of the one fold, or fitted to the rows of all folds."""
    first = found.folds[0]
    if len(found.folds) == 1:
        chosen = first.candidates[found.chosen]
        return Final(first.task, first.train, fits[0].train, chosen, first.candidates["stack"])
    every = np.sort(np.concatenate(dataclasses.astuple(fits[0])))
    closed = first.candidates[found.chosen].fitted.fuser.closed
    rows = every if closed else np.setdiff1d(every, fits[0].validation)
    task = fold_task(targets, fits, fits[0])
    train = targets.labelled(encoded.tables, rows, task)
    held = targets.labelled(encoded.tables, fits[0].validation, task)
    context = _context(plan, folder, device, reporter, resume, "all")
    parts = fusers_of(plan.config.fuser, targets.part)
    parts = {found.chosen: parts.get(found.chosen, Part(found.chosen))}
    made = fit_candidates(train, held, task, parts, context, reporter.stage)
    return Final(task, train, rows, made[found.chosen], made["stack"])


def _finish(
    plan: FusePlan,
    encoded: Encoded,
    targets: Targeted,
    found: Study,
    final: Final,
    folder: RunFolder,
    objects: Mapping[str, Encoder],
    reporter: Reporter,
) -> FuseResult:
    """Measure what was fitted, and save the predictor, the report and the results."""
    doubts = _doubts(final)
    if plan.config.task.name == MATCH:  # mismatches were made, and their rows are not at fault
        doubts = [one for one in doubts if one.target == CLASSES[1]]
    results = results_of(plan, encoded, found, doubts)
    task = final.task
    if final.candidate.fitted.scores is not None:
        task = task.settle(final.candidate.fitted.scores, final.train.targets)
    predictor = _predictor(plan, encoded, found, final, task, results, objects)
    columns = column_falls(found, encoded, predictor, plan.config.seed)
    results["columns"] = undefined_as_none([one.as_dict() for one in columns])
    reporter.stage("Saving")
    predictor.save_pretrained(folder.model)
    if not plan.config.private:
        _write_doubts(folder, doubts, final.rows, encoded)
        kind = plan.targets.part.name
        write_scores(folder.path, found.parts, found.chosen, kind, encoded.dataset)
    sections = sections_of(found, results, None if plan.config.private else encoded.dataset)
    report_fuse(folder, plan, encoded, sections, results)
    folder.write_json(folder.results, results)
    return FuseResult(folder, predictor, results, found, sections)


def results_of(
    plan: FusePlan, encoded: Encoded, found: Study, doubts: Sequence[Doubt]
) -> dict[str, Any]:
    """The content of results.json; None for a metric that is undefined."""
    dataset = encoded.dataset
    return undefined_as_none(
        {
            "task": {
                "name": plan.targets.part.name,
                "reason": plan.targets.reason,
                "metric": found.folds[0].task.primary,
            },
            "splits": {name: len(rows) for name, rows in dataset.splits.items()},
            "folds": plan.config.folds,
            **({"private": True} if plan.config.private else {}),
            "rejected": len(dataset.rejected),
            **Notices.of(dataset, [*plan.warnings, *encoded.warnings]).as_dict(),
            "fuser": found.chosen,
            "fuser_named": plan.config.fuser.name == found.chosen,
            "single": found.single,
            "verdict": found.verdict(),
            "candidates": table(found),
            "gain": found.test.difference(found.chosen, found.single).as_dict(),
            "shares": {m: one.as_dict() for m, one in found.shares(plan.config.seed).items()},
            "combinations": found.combinations(),
            "by_missing": found.by_missing(plan.config.seed),
            "conformal": found.conformal(),
            "doubtful": len(doubts),
        }
    )


def _doubts(final: Final) -> list[Doubt]:
    """The training rows that fits without them contradict."""
    own, stack = final.candidate.fitted, final.stack.fitted
    if own.scores is None and stack.scores is None:  # of a former predictor
        return []
    scores = stack.left_out if own.scores is None else own.scores
    return doubtful(final.task, scores, stack.parts, final.train.targets, final.train.present)


def _write_doubts(
    folder: RunFolder, doubts: Sequence[Doubt], rows: np.ndarray, encoded: Encoded
) -> None:
    """Write doubtful.jsonl: path, row and the rest of each."""
    lines = []
    for one in doubts:
        path, number = encoded.dataset.origin[int(rows[one.row])]
        more = {k: v for k, v in vars(one).items() if k != "row"}
        lines.append(json.dumps({"path": path, "row": number, **more}, ensure_ascii=False) + "\n")
    write_text(folder.path / "doubtful.jsonl", "".join(lines))


def _predictor(
    plan: FusePlan,
    encoded: Encoded,
    found: Study,
    final: Final,
    task: Task,
    results: Mapping[str, Any],
    objects: Mapping[str, Encoder],
) -> Predictor:
    """The predictor of the run, with its encoders ready to load."""
    fuser = final.candidate.fitted.fuser
    encoders = {
        m: EncoderInfo.of(
            spec,
            modality=m,
            dim=fuser.inputs[m],
            fingerprint=encoded.extractions[m].fingerprint,
            view=plan.views[m],
            dtype=encoded.extractions[m].dtype,
        )
        for m, spec in plan.specs.items()
    }
    notices = Notices.of(encoded.dataset, [*plan.warnings, *encoded.warnings])
    chosen = results["candidates"][found.chosen]
    metrics: dict[str, Any] = {
        "test": {**chosen["metrics"], "interval": chosen["interval"]},
        "expected": results["combinations"],
    }
    if (conformal := _conformal(found, task)) is not None:
        metrics["conformal"] = conformal.as_dict()
    if found_curves := curves(found):
        metrics["cascade"] = found_curves
    return Predictor(
        encoders,
        fuser,
        task,
        sources={m: objects.get(m, spec) for m, spec in plan.specs.items()},
        recipe={"name": found.chosen, "config": to_dict(plan.config.fuser)},
        data={
            "rows": results["splits"],
            "verdict": results["verdict"],
            **notices.without_folders(plan.config.data.files),
        },
        metrics=metrics,
        device=plan.config.device,
    )


def _conformal(found: Study, task: Task) -> Conformal | None:
    """The maker of prediction sets: calibrated on validation rows, or on the rows of all folds as
    they were predicted by the others."""
    if len(found.folds) == 1:
        one = found.folds[0]
        scores = one.candidates[found.chosen].predict(one.validation)
        return Conformal.fit(task, scores, one.validation.targets)
    scores = torch.cat([part.scores[found.chosen] for part in found.parts])
    values = torch.cat([part.targets.values for part in found.parts])
    known = torch.cat([part.targets.known for part in found.parts])
    return Conformal.fit(task, scores, type(found.parts[0].targets)(values, known))
