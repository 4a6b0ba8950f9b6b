"""The report of `fusemix rerank`: recall before and after, and what a query costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusemix_core.evaluation.directions import KS
from fusemix_core.reports.data import ReportData
from fusemix_core.reports.render import write_report
from fusemix_core.reports.run import (
    best_step,
    drawn_sections,
    folders_of,
    history,
    modalities_of,
    rejected_of,
    without,
)
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.environment import environment
from fusemix_core.runs.folder import RunFolder, read_metrics
from fusemix_core.runs.private import OF_RUN
from fusemix_core.runs.reranking import RerankPlan
from fusemix_core.sections import Section, Share, Table, Tile


def report_rerank(
    folder: RunFolder,
    plan: RerankPlan,
    encoded: Encoded,
    sections: Sequence[Section],
    results: Mapping[str, Any],
) -> None:
    """Write report.html."""
    dataset, config = encoded.dataset, plan.config
    folders, rows = folders_of(plan, folder), read_metrics(folder.metrics)
    model = without(folders, str(folder.model))
    data = ReportData(
        title=f"Re-ranking {' and '.join(config.between)}",
        summary=results["verdict"],
        facts={
            "network": results["network"]["name"],
            "weight": results["weight"],
            "top k": config.settings.top_k,
            "negatives": config.settings.negatives,
            "device": config.device,
            "seed": config.seed,
        },
        modalities=modalities_of(plan, encoded),
        splits=results["splits"],
        rows_read=dataset.rows_read,
        rejected=rejected_of(plan, dataset, folders),
        notes=[*([OF_RUN] if config.private else []), *results["warnings"]],
        sections=drawn_sections({"rerank": sections})[0],
        split=results["split"],
        history=history(rows) if len(plan.networks) == 1 else {},
        best_step=best_step(rows) if len(plan.networks) == 1 else None,
        load=f'from fusemix_core import load\n\nreranker = load("{model}")',
        config=without(folders, folder.config.read_text(encoding="utf-8")),
        environment=environment(),
    )
    write_report(folder.report, data)


def sections_of(results: Mapping[str, Any]) -> list[Section]:
    """The sections of the report and the terminal."""
    return [_recall(results), _choice(results)]


def _recall(results: Mapping[str, Any]) -> Section:
    measured = results["measured"]
    gain, cost = measured["gain"]["mean"], measured["cost"]
    rows = []
    for name in measured["before"]["directions"]:
        for when in ("before", "after"):
            row = measured[when]["directions"][name]
            cells = [Share(row[f"r{k}"], row.get(f"r{k}_interval")) for k in KS]
            rows.append([f"{_arrow(name)}, {when}", *cells, row["mrr"]])
    gains = [
        [_arrow(name), *(signed(row[f"r{k}"], row[f"r{k}_interval"]) for k in KS)]
        for name, row in measured["gain"].items()
    ]
    recalls = [f"R@{k}" for k in KS]
    return Section(
        "Re-ranking",
        f"The first {measured['top_k']} results of the fused model are ranked anew. That "
        f"takes {cost['ms']:.1f} ms a query for {cost['candidates']} candidates on "
        f"{cost['threads']} thread(s), if their tokens are in the latent store.",
        tables=[
            Table(["direction", *recalls, "MRR"], rows, f"On the {results['split']} split"),
            Table(["gain", *recalls], gains, "Percent points, with paired 95% intervals"),
        ],
        note="Ties count against the query.",
        headline=[
            Tile("R@1 gained", signed(gain["r1"], gain["r1_interval"]), "percent points"),
            Tile("ms a query", round(cost["ms"], 1), f"{cost['candidates']} candidates"),
        ],
    )


def _choice(results: Mapping[str, Any]) -> Section:
    """How networks and weights did on validation."""
    rows = []
    for name, one in results["candidates"].items():
        mark = " (chosen)" if name == results["network"]["name"] else ""
        rows.append([f"{name}{mark}", one["weight"], one["before"], one["mrr"], one["seconds"]])
    return Section(
        "Choice",
        "The network, and the weight of its score, are chosen on validation by mean reciprocal "
        "rank (MRR).",
        tables=[Table(["network", "weight", "MRR before", "MRR after", "seconds"], rows)],
        note="A weight of 0 leaves the order of the fused model. At 1 both scores vary as much.",
    )


def verdict(weight: float, measured: Mapping[str, Any], split: str) -> str:
    """The result in one sentence."""
    if not weight:
        return (
            "No gain: on validation no network ranks better than the fused model, so its order "
            "stays."
        )
    row = measured["gain"]["mean"]
    low_high = row["r1_interval"]
    after, before = measured["after"]["mean_r1"], measured["before"]["mean_r1"]
    change = f"R@1 goes from {before:.1f} to {after:.1f} on the {split} split"
    shown = signed(row["r1"], low_high)
    if split != "test":
        return (
            f"{change} ({shown}), whose rows chose the weight: only a test split shows whether "
            "re-ranking helps."
        )
    if low_high is None or low_high[0] <= 0 <= low_high[1]:
        return f"{change} ({shown}): a difference that may be chance."
    return f"{change} ({shown}): re-ranking {'helps' if row['r1'] > 0 else 'hurts'}."


def signed(value: float, between: Sequence[float] | None) -> str:
    """A gain as `+3.1 [1.0, 5.2]`."""
    return f"{value:+.1f}" + ("" if between is None else f" [{between[0]:.1f}, {between[1]:.1f}]")


def _arrow(direction: str) -> str:
    return direction.replace("->", " → ", 1)
