"""The report that a run leaves for people."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.items import Items
from fusemix_core.data.media import Shown
from fusemix_core.errors import FusemixError
from fusemix_core.evaluation.examples import Retrieved
from fusemix_core.evaluation.running import named
from fusemix_core.reports.data import Example, ReportData, ShownHit
from fusemix_core.reports.figures import drawn
from fusemix_core.reports.points import Named, Show
from fusemix_core.reports.render import SMALL, clipped, thumbnail, write_report
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.folder import RunFolder, read_metrics
from fusemix_core.runs.fusing import FusePlan
from fusemix_core.runs.measure import Measurement
from fusemix_core.runs.plan import Plan
from fusemix_core.runs.private import OF_RUN
from fusemix_core.runs.reranking import RerankPlan
from fusemix_core.sections import Section

AnyPlan = Plan | FusePlan | RerankPlan
"""A run whose report is written."""
_MOST_COPIES = 200
"""Images of a map that are shown when pointed at; the others are named."""


def report_run(
    folder: RunFolder,
    plan: Plan,
    encoded: Encoded,
    measured: Measurement,
    found: list[Retrieved],
    sure: list[Retrieved],
    results: Mapping[str, Any],
    environment: Mapping[str, Any],
    load: str,
) -> dict[str, FusemixError]:
    """Write report.html.

    Args:
        found: examples, with item numbers of the dataset.
        sure: wrong answers with the highest scores, likewise.
        results: what results.json has.
        load: the Python that loads the model.

    Returns:
        evaluator → error, for those whose figures could not be drawn and are left out.
    """
    dataset, rows = encoded.dataset, read_metrics(folder.metrics)
    folders = folders_of(plan, folder)
    show = Shower(dataset.items, folders, private=plan.config.private)
    sections, failed = drawn_sections(measured.sections, show)
    data = ReportData(
        title=" + ".join(spec.name for spec in plan.specs.values()),
        summary=f"{len(dataset):,} pairs, aligned by the recipe {plan.config.recipe.name}.",
        facts=facts_of(plan, results),
        modalities=modalities_of(plan, encoded),
        splits={k: len(v) for k, v in dataset.splits.items()},
        rows_read=dataset.rows_read,
        rejected=rejected_of(plan, dataset, folders),
        notes=notes_of(plan, results),
        sections=sections,
        split=measured.shown.split,
        history=history(rows),
        best_step=best_step(rows),
        examples=[shown_example(r, dataset.items, folders) for r in found],
        sure=[shown_example(r, dataset.items, folders) for r in sure],
        load=without(folders, load),
        config=without(folders, folder.config.read_text(encoding="utf-8")),
        environment=environment,
    )
    write_report(folder.report, data)
    return failed


def notes_of(plan: Plan, results: Mapping[str, Any]) -> list[str]:
    """The notes of a report: that a run is private, warnings, baselines that were left out."""
    skipped = [
        f"The baseline {name} is left out: {one['skipped']}"
        for name, one in results["baselines"].items()
        if "skipped" in one
    ]
    return [*([OF_RUN] if plan.config.private else []), *results["warnings"], *skipped]


def rejected_of(
    plan: AnyPlan, dataset: PairedDataset, folders: Sequence[str]
) -> list[dict[str, Any]]:
    """The entries that could not be used; of a private run without reasons, which quote rows."""
    changed = {"reason": "not shown: the run is private"} if plan.config.private else {}
    return [
        {**dataclasses.asdict(r), "path": without(folders, r.path), **changed}
        for r in dataset.rejected
    ]


def drawn_sections(
    sections: Mapping[str, Sequence[Section]], show: Show | None = None
) -> tuple[list[Section], dict[str, FusemixError]]:
    """The sections of all evaluators with their figures drawn, and evaluator → error for those
    whose figures can't be drawn: their sections have none."""
    found: list[Section] = []
    failed: dict[str, FusemixError] = {}
    for name, own in sections.items():
        try:
            found += [drawn(section, name, show) for section in own]
        except (Exception, SystemExit) as error:  # whatever a plugin does, the report is written
            failed[name] = named(name, error)
            found += [dataclasses.replace(section, figures=()) for section in own]
    return found, failed


def facts_of(plan: Plan, results: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown beside the data of a run."""
    config = plan.config
    return {
        "recipe": config.recipe.name,
        **({"fixed": ", ".join(plan.fixed)} if plan.fixed else {}),
        **({"extends": config.extends} if config.extends else {}),
        "scorer": results["scorer"]["name"],
        "device": config.device,
        "seed": config.seed,
        "fit": f"{results['fit_seconds']:.0f} s",
        **({"cut short": why} if (why := results.get("cut_short")) else {}),
    }


def modalities_of(plan: AnyPlan, encoded: Encoded) -> dict[str, dict[str, Any]]:
    """The table of encoders, a row per modality."""
    return {
        m: {
            "encoder": spec.name,
            "view": plan.views[m],
            "items": len(encoded.dataset.items[m]),
            "encoded now": encoded.extractions[m].encoded,
            "width": encoded.tables[m].shape[-1],
            "licence": spec.licence,
        }
        for m, spec in plan.specs.items()
    }


def history(rows: list[dict[str, Any]]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """The panels of the training curves, from the rows of metrics.jsonl."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}

    def add(panel: str, series: str, row: Mapping[str, Any], key: str) -> None:
        points = panels.setdefault(panel, {}).setdefault(series, [])
        if points and points[-1][0] == row["step"]:  # a closed form reports each of its maps
            points.pop()
        points.append((row["step"], row[key]))

    for row in rows:
        for key in row:
            if row["kind"] == "train" and key in ("loss", "lr", "temperature"):
                add(key, "train", row, key)
            elif row["kind"] == "validation" and key.startswith("recall_at_1"):
                add("validation R@1", key.partition("/")[2] or "mean", row, key)
    return panels


def best_step(rows: list[dict[str, Any]]) -> int | None:
    """The step with the best validation score, the earlier of equals."""
    scored = [r for r in rows if r["kind"] == "validation" and "score" in r]
    return max(scored, key=lambda r: (r["score"], -r["step"]))["step"] if scored else None


def shown_example(
    retrieved: Retrieved, items: Mapping[str, Items], folders: Sequence[str] = ()
) -> Example:
    """A retrieval with its items as a reader sees them, whose paths don't name `folders`."""

    def show(modality: str, item: int) -> Shown:
        shown = items[modality].show(item)
        return dataclasses.replace(shown, note=without(folders, shown.note))

    path, row = items[retrieved.query].origin[retrieved.item]
    target = retrieved.target
    return Example(
        query=retrieved.query,
        target=target,
        rank=retrieved.rank,
        item=show(retrieved.query, retrieved.item),
        hits=[ShownHit(show(target, h.item), h.score, h.partner) for h in retrieved.hits],
        partners=[show(target, p) for p in retrieved.partners[:1]],
        note=f"{without(folders, path)}, row {row}",
    )


class Shower:
    """Names the items of a map: file and row, and unless it is `private` the start of a text, or a
    small copy of an image. Copies are made of the first `_MOST_COPIES` images only. If it is
    `private` a map has its first colours only: others are values of columns."""

    def __init__(
        self, items: Mapping[str, Items], folders: Sequence[str], *, private: bool
    ) -> None:
        self.items, self.folders, self.private, self.copies = items, folders, private, 0

    def __call__(self, modality: str, number: int) -> Named:
        items = self.items[modality]
        path, row = items.origin[number]
        place = f"{without(self.folders, path)}, row {row}"
        if self.private:
            return Named(place)
        if items.medium.inline or self.copies >= _MOST_COPIES:
            return Named(place, clipped(without(self.folders, items.describe(number))))
        shown = items.show(number)
        if shown.image is None:
            return Named(place, clipped(shown.text or without(self.folders, shown.note)))
        self.copies += 1
        return Named(place, image=thumbnail(shown, SMALL))


def folders_of(plan: AnyPlan, run: RunFolder) -> list[str]:
    """The folders that the data and the run lie in, and the working folder, the deepest first: a
    report that is handed on doesn't name them."""
    data = plan.config.data.located()
    paths = [os.path.abspath(one) for one in (*data.source, data.validation, data.test) if one]
    folders = {one if os.path.isdir(one) else os.path.dirname(one) for one in paths}
    folders |= {os.path.abspath(run.path.parent), os.getcwd()}
    return sorted(folders - {os.sep}, key=len, reverse=True)


def without(folders: Sequence[str], text: str) -> str:
    """A text in which paths don't name these folders; other paths stay as they are."""
    for folder in folders:
        text = text.replace(f"{folder}{os.sep}", "").replace(f'"{folder}"', '"."')
    return text
