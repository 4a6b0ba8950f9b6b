"""The report that a run leaves for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fusemix_core.data.items import Items
from fusemix_core.evaluation.examples import Retrieved
from fusemix_core.reports.data import Example, ReportData, ShownHit
from fusemix_core.reports.render import write_report
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.folder import RunFolder, read_metrics
from fusemix_core.runs.measure import SplitEmbeddings
from fusemix_core.runs.plan import Plan


def report_run(
    folder: RunFolder,
    plan: Plan,
    encoded: Encoded,
    split: SplitEmbeddings,
    found: list[Retrieved],
    results: Mapping[str, Any],
    environment: Mapping[str, Any],
    load: str,
) -> None:
    """Write report.html. `found` holds item numbers of the dataset."""
    dataset, config = encoded.dataset, plan.config
    name = "test" if "test" in results else "validation"
    measured, scorer = results[name], results["scorer"]["name"]
    retrieval = {scorer: measured["retrieval"]}
    if "retrieval_cosine" in measured:
        retrieval["cosine"] = measured["retrieval_cosine"]
    rows = read_metrics(folder.metrics)
    data = ReportData(
        title=" + ".join(spec.name for spec in plan.specs.values()),
        summary=f"{len(dataset):,} pairs, aligned by the recipe {config.recipe.name}.",
        facts={
            "recipe": config.recipe.name,
            **({"fixed": ", ".join(plan.fixed)} if plan.fixed else {}),
            **({"extends": config.extends} if config.extends else {}),
            "scorer": scorer,
            "device": config.device,
            "seed": config.seed,
            "fit": f"{results['fit_seconds']:.0f} s",
        },
        modalities={
            m: {
                "encoder": spec.name,
                "view": plan.views[m],
                "items": len(dataset.items[m]),
                "encoded now": encoded.extractions[m].encoded,
                "width": encoded.row_tables[m].shape[-1],
                "licence": spec.licence,
            }
            for m, spec in plan.specs.items()
        },
        splits={k: len(v) for k, v in dataset.splits.items()},
        rows_read=dataset.rows_read,
        rejected=[dataclasses.asdict(r) for r in dataset.rejected],
        notes=[*plan.warnings, *(w for e in encoded.extractions.values() for w in e.warnings)],
        retrieval=retrieval,
        scorer=scorer,
        split=name,
        history=history(rows),
        best_step=best_step(rows),
        examples=[shown_example(r, dataset.items) for r in found],
        embeddings={m: e.numpy() for m, e in split.embeddings.items()},
        links=split.links.numpy(),
        geometry=measured["geometry"],
        load=load,
        config=folder.config.read_text(encoding="utf-8"),
        environment=environment,
    )
    write_report(folder.report, data)


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


def shown_example(retrieved: Retrieved, items: Mapping[str, Items]) -> Example:
    """A retrieval with its items as a reader sees them."""
    gallery = items[retrieved.target]
    return Example(
        query=retrieved.query,
        target=retrieved.target,
        rank=retrieved.rank,
        item=items[retrieved.query].show(retrieved.item),
        hits=[ShownHit(gallery.show(h.item), h.score, h.partner) for h in retrieved.hits],
        partners=[gallery.show(p) for p in retrieved.partners[:1]],
    )
