"""The report of `fusemix fuse`: which way of predicting is best, and what each modality gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fusemix_core.config import FuseConfig
from fusemix_core.data.cells import FactColumn
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.media import Shown
from fusemix_core.fusion.study import Study
from fusemix_core.reports.data import ReportData
from fusemix_core.reports.render import write_report
from fusemix_core.reports.run import (
    drawn_sections,
    folders_of,
    modalities_of,
    rejected_of,
    without,
)
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.environment import environment
from fusemix_core.runs.folder import RunFolder
from fusemix_core.runs.fusing import FusePlan
from fusemix_core.runs.private import OF_RUN
from fusemix_core.sections import Figure, Section, Table, Tile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 8
"""Metrics that fit beside each other."""
_KIND = {"baseline": "baseline", "single": "one modality", "fuser": "all modalities"}


def report_fuse(
    folder: RunFolder,
    plan: FusePlan,
    encoded: Encoded,
    sections: Sequence[Section],
    results: Mapping[str, Any],
) -> None:
    """Write report.html."""
    dataset, config = encoded.dataset, plan.config
    folders = folders_of(plan, folder)
    task, model = results["task"], without(folders, str(folder.model))
    data = ReportData(
        title=_title(config, plan.specs),
        summary=f"{len(dataset):,} rows. Task: {task['name']}, because {task['reason']}.",
        facts={
            "task": task["name"],
            "fuser": results["fuser"],
            "folds": config.folds or "none",
            "device": config.device,
            "seed": config.seed,
        },
        modalities=modalities_of(plan, encoded),
        splits=results["splits"],
        rows_read=dataset.rows_read,
        rejected=rejected_of(plan, dataset, folders),
        notes=[*([OF_RUN] if config.private else []), *results["warnings"]],
        sections=drawn_sections({"fuse": sections})[0],
        load=f'from fusemix_core import load\n\npredictor = load("{model}")',
        config=without(folders, folder.config.read_text(encoding="utf-8")),
        environment=environment(),
    )
    write_report(folder.report, data)


def _title(config: FuseConfig, modalities: Iterable[str]) -> str:
    """The targets and the modalities."""
    read = [FactColumn.parse(config.data.facts.get(one, one)).column for one in config.targets]
    columns = ", ".join(read[:3]) + (", …" if len(read) > 3 else "")
    return f"{columns or 'match'} from {' + '.join(modalities)}"


def sections_of(
    study: Study, results: Mapping[str, Any], dataset: PairedDataset | None
) -> list[Section]:
    """The sections of the report and the terminal; those that show items need their dataset."""
    found = [_comparison(results), *gain_sections(results)]
    if dataset is not None:
        found += _of_task(study, dataset)
    if results["conformal"]:
        found.append(_trust(study, results))
    return found


def _of_task(study: Study, dataset: PairedDataset) -> list[Section]:
    """The sections of the task about the test rows."""
    one = study.folds[0]

    def show(row: int) -> dict[str, Shown]:
        links = dataset.links[one.rows[row]].tolist()
        items = zip(dataset.items.items(), links, strict=True)
        return {m: own.show(i) for (m, own), i in items if i >= 0}

    scores = one.candidates[study.chosen].predict(one.test)
    return list(one.task.sections(scores, one.test.targets, show))


def gain_sections(results: Mapping[str, Any]) -> list[Section]:
    """The share of each modality if there are several and the metric is defined, and the columns of
    tables."""
    known = any(one["value"] is not None for one in results["shares"].values())
    several = [_shares(results), _missing(results)] if known and len(results["shares"]) > 1 else []
    return [*several, *([_columns(results)] if results["columns"] else [])]


def _comparison(results: Mapping[str, Any]) -> Section:
    metric, fuser = results["task"]["metric"], results["fuser"]
    value, choice = (
        results["candidates"][fuser]["metrics"][metric],
        f"on validation rows by {metric}",
    )
    mark, how = "chosen", f"Chosen {choice}."
    if results["fuser_named"]:
        mark, how = "named", f"The run or its task names the fuser. Modalities are chosen {choice}."
    return Section(
        "Predictions",
        results["verdict"],
        tables=[_candidates(results["candidates"], {fuser: f"{fuser} ({mark})"}, metric)],
        note=f"{how} Test rows were measured once. Intervals are of rows, or groups of rows, that "
        "are drawn with replacement.",
        headline=[Tile(metric, value, _beside(results))],
    )


def _candidates(candidates: Mapping[str, Any], marked: Mapping[str, str], metric: str) -> Table:
    """A row for each candidate; of more than `MOST` metrics a row for each of these.

    Args:
        candidates: name → its kind, metrics and interval.
        marked: name → how it is shown, of those that aren't shown by their name.
        metric: the metric of the interval.
    """
    metrics, span = list(next(iter(candidates.values()))["metrics"]), f"95% interval of {metric}"
    names = {name: marked.get(name, name) for name in candidates}
    if len(metrics) > MOST:
        ends = [_span(one["interval"]) for one in candidates.values()]
        rows = [[m, *(one["metrics"][m] for one in candidates.values())] for m in metrics]
        rows.insert(1 + metrics.index(metric), [span, *ends])
        return Table(["predicted from", *names.values()], rows)
    rows = [
        [
            names[name],
            _KIND[one["kind"]],
            *(one["metrics"][m] for m in metrics),
            _span(one["interval"]),
        ]
        for name, one in candidates.items()
    ]
    return Table(["predicted from", "kind", *metrics, span], rows)


def _beside(results: Mapping[str, Any]) -> str:
    """The best modality by itself, to compare a number with."""
    single, metric = results["single"], results["task"]["metric"]
    value = results["candidates"][single]["metrics"][metric]
    return f"only {single} {value:.3f}" if value is not None else ""


def _span(interval: Sequence[float] | None) -> str | None:
    return None if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _shares(results: Mapping[str, Any]) -> Section:
    metric, shares = results["task"]["metric"], results["shares"]
    rows = [
        [m, one["value"], _span(one["interval"]), one["first"], one["last"]]
        for m, one in shares.items()
    ]

    def draw(axes: Axes) -> None:
        names = [m for m in shares if shares[m]["value"] is not None][::-1]
        values = [shares[m]["value"] for m in names]
        axes.barh(names, values, color="C0")
        for k, m in enumerate(names):
            if (span := shares[m]["interval"]) is not None:
                axes.plot(span, [k, k], color="C1")
        axes.axvline(0, color="C2", linewidth=1)
        axes.set_xlabel(metric)

    return Section(
        "Modalities",
        f"What each modality adds to {metric}: Shapley values, over all orders of adding them.",
        tables=[
            Table(["modality", "share", "95% interval", "by itself", "beside all others"], rows)
        ],
        figures=[
            Figure(draw, title="Share of each modality", alt="Shapley value of each modality")
        ],
        note="The shares add up to what all modalities gain over none.",
    )


def _missing(results: Mapping[str, Any]) -> Section:
    metric, points = results["task"]["metric"], results["by_missing"]
    rows = [[name, value] for name, value in results["combinations"].items()]

    def draw(axes: Axes) -> None:
        known = [(100 * rate, value) for rate, value in points if value is not None]
        axes.plot([rate for rate, _ in known], [value for _, value in known], marker="o")
        axes.set_xlabel("% of entries missing")
        axes.set_ylabel(metric)

    return Section(
        "Missing modalities",
        f"{metric} from each combination of modalities, and when entries are missing at random.",
        tables=[Table(["from", metric], rows)],
        figures=[Figure(draw, title="Missing entries", alt=f"{metric} by missing entries")],
    )


def _columns(results: Mapping[str, Any]) -> Section:
    metric = results["task"]["metric"]
    rows = [
        [one["modality"], one["column"], one["value"], _span(one["interval"])]
        for one in results["columns"]
    ]
    return Section(
        "Columns",
        f"By how much {metric} falls if the cells of a column are exchanged among test rows.",
        tables=[Table(["table", "column", "fall", "95% interval"], rows)],
        note="The mean of five draws. Columns that say the same have small falls, as one replaces "
        "the other.",
    )


def _trust(study: Study, results: Mapping[str, Any]) -> Section:
    found, figures = results["conformal"], []
    one = study.folds[0]
    plot = None
    if one.task.gives == "classes":
        scores = one.candidates[study.chosen].predict(one.test)
        plot = one.task.reliability(scores, one.test.targets)
    if plot is not None:
        points = plot.as_dict()

        def draw(axes: Axes) -> None:
            axes.plot([0, 1], [0, 1], color="C2", linewidth=1)
            axes.plot(points["confidence"], points["accuracy"], marker="o", color="C0")
            axes.set_xlabel("confidence")
            axes.set_ylabel("accuracy")

        figures = [Figure(draw, title="Reliability", alt="Accuracy by confidence")]
    rows = [[name, value] for name, value in found.items()]
    return Section(
        "Trust",
        "Prediction sets (or intervals) that should contain the truth for 90% of rows: their "
        "coverage of test rows, and their mean size (none if validation rows are too few for an "
        "interval with ends).",
        tables=[Table(["measure", "value"], rows)],
        figures=figures,
    )
