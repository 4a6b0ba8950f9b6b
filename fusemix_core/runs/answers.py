"""The first answers of a run: a table of every query, when to trust them, and the worst of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.items import Items
from fusemix_core.evaluation.answers import Answers, above, precision_curve, threshold
from fusemix_core.evaluation.examples import Hit, Retrieved
from fusemix_core.measured import Measured
from fusemix_core.runs.folder import RunFolder, write_text
from fusemix_core.sections import Figure, Section, Share, Table

GOALS = (90, 50)
"""How many percent of the trusted answers shall be right."""

MOST_SPLIT = 1_000_000

_KS = (1, 2, 3, 5, 10, 20, 50, 100)
_COLUMNS = ("query", "target", "item", "file", "row", "rank", "score", "first", "partner",
            "partner_score")  # fmt: skip


def trusted(
    validation: Sequence[Answers], test: Sequence[Answers], data: Measured
) -> dict[str, dict[str, dict[str, Any]]]:
    """direction → goal → what its threshold is worth on the test split `data`.

    For each goal of `GOALS` that is reached, `score` is chosen on validation, so that so many
    percent of the answers from there on are right; the rest is the result of
    `evaluation.answers.above` on test.
    """
    sizes = {m: len(rows) for m, rows in data.embeddings.items()}
    asked = {(found.query, found.target): found for found in validation}
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for found in test:
        own = table.setdefault(f"{found.query}->{found.target}", {})
        for goal in GOALS if (found.query, found.target) in asked else ():
            score = threshold(asked[found.query, found.target], goal / 100)
            if score is not None:
                worth = above(found, score, data.links, sizes, data.seed)
                own[str(goal)] = {"score": score, **worth}
    return table


def trust_section(
    test: Sequence[Answers], table: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> Section:
    """When to trust the first answer, and how many answers to look at. Of goals with the same
    threshold, only the first is shown."""
    rows, missed = [], []
    for name, goals in table.items():
        shown: set[float] = set()
        for goal, row in goals.items():
            if row["score"] in shown:
                continue
            shown.add(row["score"])
            arrow, between = name.replace("->", " → ", 1), row["precision_interval"]
            worth = Share(row["share"]), Share(row["precision"], between)
            rows.append([arrow, f"{goal}%", round(row["score"], 3), *worth])
            if between is not None and between[1] < float(goal):
                missed.append(f"{goal}% in {arrow}")
    names = [f"{found.query} → {found.target}" for found in test]
    columns = ["direction", "goal", "score from", "of the queries, %", "of these right, %"]
    return Section(
        "When to trust an answer",
        "From this score on, the share of first answers that are right reached the goal on "
        "validation. The other columns are measured on test." + _missed(missed)
        if rows
        else f"From no score on are {GOALS[-1]}% of the first answers right on validation.",
        tables=[Table(columns, rows)] if rows else [],
        figures=[_recall_figure(test, names), _precision_figure(test, names)],
    )


def _missed(goals: Sequence[str]) -> str:
    if not goals:
        return ""
    return f" Test missed the goal of {', '.join(goals)}: the whole interval is below it."


def _recall_figure(test: Sequence[Answers], names: Sequence[str]) -> Figure:
    def draw(axes: Any) -> None:
        for i, found in enumerate(test):
            ks = [k for k in _KS if k <= found.gallery]
            axes.plot(ks, [found.recall(k) for k in ks], f"C{i % 6}", marker="o", markersize=3)
        axes.set(xscale="log", xlabel="answers looked at", ylabel="its partner is there, %")
        axes.set(xticks=_KS, xticklabels=_KS, ylim=(0, 100))
        axes.minorticks_off()

    shown = "; ".join(f"{n}: {f.recall(10):.0f}% in 10" for n, f in zip(names, test, strict=True))
    return Figure(draw, "How many to look at", names, alt=f"Recall at K. {shown}")


def _precision_figure(test: Sequence[Answers], names: Sequence[str]) -> Figure:
    def draw(axes: Any) -> None:
        for i, found in enumerate(test):
            axes.plot(*precision_curve(found), f"C{i % 6}")
        axes.set(xlabel="queries answered, the surest first, %", ylabel="right, %", ylim=(0, 101))

    return Figure(
        draw,
        "Right answers among the surest",
        names,
        alt="The share of right first answers among the queries with the highest scores.",
    )


def surest_wrong(test: Sequence[Answers], data: Measured, count: int = 3) -> list[Retrieved]:
    """In each direction the wrong first answers with the highest scores, with the items' numbers in
    the split."""
    found = []
    for one in test:
        wrong = (~one.right).nonzero()[:, 0]
        surest = one.score[wrong].argsort(descending=True, stable=True)[:count]
        for i in wrong[surest].tolist():
            hit = Hit(int(one.first[i]), float(one.score[i]), partner=False)
            partner = int(one.partner[i])
            found.append(
                Retrieved(
                    one.query, one.target, int(one.queries[i]), int(one.rank[i]), (hit,), (partner,)
                )
            )
    return found


def write_answers(
    folder: RunFolder,
    test: Sequence[Answers],
    data: Measured,
    dataset: PairedDataset,
    private: bool = False,
) -> None:
    """Write `<split>_ranks.csv`: a row for each query of each direction, with the file and row that
    it was read from, the rank of its partner, what came first, and the scores of both. If it is
    `private`, items are named by their rows only."""

    def name(items: Items, item: int) -> str:
        return "row {1} of {0}".format(*items.origin[item]) if private else items.describe(item)

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in test:
        asked, searched = dataset.items[one.query], dataset.items[one.target]
        columns = [
            data.ids[one.query][one.queries].tolist(),
            one.rank.tolist(),
            one.score.tolist(),
            data.ids[one.target][one.first].tolist(),
            data.ids[one.target][one.partner].tolist(),
            one.partner_score.tolist(),
        ]
        for item, rank, score, first, partner, theirs in zip(*columns, strict=True):
            writer.writerow(
                [
                    one.query,
                    one.target,
                    name(asked, item),
                    *asked.origin[item],
                    rank,
                    f"{score:.6g}",
                    name(searched, first),
                    name(searched, partner),
                    f"{theirs:.6g}",
                ]
            )
    write_text(folder.path / f"{data.split}_ranks.csv", out.getvalue())


def write_splits(folder: RunFolder, dataset: PairedDataset) -> None:
    """Write `splits.csv`: the split of every row that is used, by its file and number. Of more than
    `MOST_SPLIT` rows, only those of validation and test: all others are training rows."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("file", "row", "split"))
    for name, rows in dataset.splits.items():
        if name != "train" or len(dataset) <= MOST_SPLIT:
            writer.writerows((*dataset.origin[i], name) for i in rows.tolist())
    write_text(folder.path / "splits.csv", out.getvalue())
