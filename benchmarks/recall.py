"""Time to recall: the default recipe beside `fusemix`, from cached latents, on sets of
several sizes. Every fit is kept in results/recall-fits.jsonl, and what is there is not made again.

    python -m benchmarks recall --data DATA

The encoders are those of fusemix-starter[speech] and fusemix-chem; what the latent store lacks is
encoded first. Five seeds take hours, nearly all of it `fusemix`'s.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.fits import DEFAULT, PAPER, SCORERS, FromFiles, Generated, fit_all
from benchmarks.harness import Bar, Options, Row
from benchmarks.results import RESULTS
from fusemix_core.evaluation.seeds import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Time to recall"

ABOUT = """
From cached latents, `auto` and `fusemix` fitted one after the other in one process, a new
split each seed; means over seeds with 95% Student intervals. `fusemix` runs with 1,024 pairs
a batch after mixing and 100 epochs, as 20,480 and 500 are meant for a hundred times the data.

- *Time to its recall*: seconds until the weights that `auto` would keep have the validation
  R@1 that `fusemix` ends at (its last evaluation, or what it keeps if that is better). The
  ratio says how often that fits into the whole time of `fusemix`, the median of its seeds;
  a geometric mean.
- *R@1*: on the test split, mean of both directions, in percent; models chosen on validation and
  measured once. Both recipes are measured with both scorers; the bank of `csls` is of training
  embeddings only. The ratio is that of the means.

Pairs are those to fit and choose on; the test split is the whole set's at every size. `openstax`:
textbook figures and alt texts, split by module, EfficientNet-Lite0 and MiniLM; `chebi20`: molecules
and descriptions, ChemNet and MiniLM; `esc10`: sounds and the names of their ten classes, Whisper
tiny and MiniLM, split by fold: with ten texts R@1 is high for both, and 1.5 times would be more
than 100%.
"""

SEEDS = range(5)
SPEED_UP = {("openstax", None): Bar(300, at_least=True)}
RECALL = Bar(1.5, at_least=True)
SETTINGS = {PAPER: ["training.batch_size=1024", "training.epochs=100"], DEFAULT: []}
QUICK = {PAPER: ["training.epochs=3", "adapter.blocks=1"], DEFAULT: ["training.epochs=2"]}

COLOURS = {DEFAULT: "tab:blue", PAPER: "tab:orange"}
POINTS = 40
"""Of a curve against time."""

Fit = Mapping[str, Any]


def measure(options: Options) -> Iterator[Row]:
    """The rows of each set and size. Without `data` there is nothing to measure but the quick
    form."""
    if options.quick:
        yield from summed_up(options, [Generated()], range(1), QUICK)
    elif options.data is not None:
        yield from summed_up(options, real_sets(options.data), SEEDS, SETTINGS)


def real_sets(data: Path) -> list[FromFiles]:
    return [
        FromFiles(
            "openstax",
            {"image": "efficientnet-lite0", "text": "minilm"},
            data / "openstax" / "manifest.jsonl",
            {"columns": {"text": "alt"}, "group_by": "module"},
        ),
        FromFiles(
            "chebi20",
            {"molecule": "chemnet", "text": "minilm"},
            data / "chebi20" / "validation.tsv",
            {"columns": {"molecule": "SMILES", "text": "description"}},
        ),
        FromFiles(
            "esc10",
            {"audio": "whisper-tiny", "text": "minilm"},
            data / "esc10" / "manifest.jsonl",
            {"columns": {"text": "label"}, "group_by": "fold"},
            sizes=(None,),
        ),
    ]


def summed_up(
    options: Options,
    sets: Sequence[FromFiles | Generated],
    seeds: Sequence[int],
    settings: Mapping[str, list[str]],
) -> Iterator[Row]:
    """The rows of the sets, each set and size once its seeds are done."""
    kept = (options.scratch if options.quick else RESULTS) / "recall-fits.jsonl"
    for paired in sets:
        fits: dict[Any, dict[str, list[Fit]]] = defaultdict(lambda: defaultdict(list))
        for one in fit_all([paired], seeds, settings, kept):
            fits[one["size"]][one["recipe"]].append(one)
        for size, found in fits.items():
            yield from rows_of(paired.name, size, found[DEFAULT], found[PAPER])


def rows_of(name: str, size: int | None, ours: list[Fit], papers: list[Fit]) -> Iterator[Row]:
    """The rows of one set and size; the fits of both recipes in the order of their seeds."""
    pairs = round(statistics.mean(f["pairs"]["train"] + f["pairs"]["validation"] for f in ours))
    what = f"{name}, {pairs:,} pairs"
    place = {"set": name, "pairs": pairs}
    yield time_row(what, place, ours, papers, SPEED_UP.get((name, size)))
    totals = [[f["seconds"] for f in fits] for fits in (ours, papers)]
    yield Row(
        f"{what}: whole fit",
        statistics.median(totals[0]),
        "s",
        f"{PAPER}, {statistics.median(totals[1]):.3g} s",
        statistics.median(a / b for a, b in zip(*totals, strict=True)),
        Bar(1.0),
    )
    for scorer in SCORERS:
        yield recall_row(what, place, scorer, ours, papers)


def time_row(
    what: str, place: Mapping[str, Any], ours: list[Fit], papers: list[Fit], bar: Bar | None
) -> Row:
    """Seconds to what the paper's recipe ends at, and how often they fit into its time. Where some
    seed never gets there that is 0, and the seconds are those of the whole fit."""
    reached = [reaches(f, ends_at(p)) for f, p in zip(ours, papers, strict=True)]
    total = statistics.median(p["seconds"] for p in papers)
    against = f"{PAPER}, {total:.3g} s to {100 * mean_end(papers):.3g}%"
    if missing := sum(math.isinf(s) for s in reached):
        speed_up = 0.0
        against += f" (not reached in {missing} of {len(ours)} seeds)"
    else:
        logs = [math.log(total / s) for s in reached]
        middle, half = mean_interval(logs)
        speed_up = math.exp(middle)
        if half is not None:
            against += f"; ratio {math.exp(middle - half):.3g} to {math.exp(middle + half):.3g}"
    return Row(
        f"{what}: time to its recall",
        statistics.median(f["seconds"] for f in ours) if missing else statistics.median(reached),
        "s",
        against,
        speed_up,
        bar,
        {**place, "curves": {DEFAULT: curve(ours), PAPER: curve(papers)}},
    )


def recall_row(
    what: str, place: Mapping[str, Any], scorer: str, ours: list[Fit], papers: list[Fit]
) -> Row:
    """Test R@1 of both recipes by one scorer."""
    r1 = {
        name: [f["test"][scorer]["r1"] for f in fits]
        for name, fits in ((DEFAULT, ours), (PAPER, papers))
    }
    of_means, half = ratio_of_means(r1[DEFAULT], r1[PAPER])
    _, own = mean_interval(r1[DEFAULT])
    against = f"{PAPER}, {said(r1[PAPER])}%"
    if half is not None:
        against += f"; ratio {of_means - half:.3g} to {of_means + half:.3g}"
    return Row(
        f"{what}: R@1 by {scorer}",
        statistics.mean(r1[DEFAULT]),
        "%" if own is None else f"± {own:.2g} %",
        against,
        of_means,
        RECALL if RECALL.limit * statistics.mean(r1[PAPER]) <= 100 else None,
        {**place, "scorer": scorer, "r1": {name: mean_interval(v) for name, v in r1.items()}},
    )


def held(one: Fit) -> list[tuple[float, float]]:
    """(seconds, validation R@1) of the weights that a fit would keep, each time they change: those
    of the best score so far."""
    points, best = [], -math.inf
    for seconds, _, r1, score in one["trajectory"]:
        if score > best:
            points.append((seconds, r1))
            best = score
    return points


def ends_at(paper: Fit) -> float:
    """The validation R@1 that a fit ends at, in [0, 1]: of its last evaluation, or of the weights
    kept where that is higher."""
    return max(paper["trajectory"][-1][2], held(paper)[-1][1])


def mean_end(papers: list[Fit]) -> float:
    return statistics.mean(ends_at(p) for p in papers)


def reaches(one: Fit, recall: float) -> float:
    """Seconds until the weights held have this validation R@1; inf if they never do."""
    return next((seconds for seconds, r1 in held(one) if r1 >= recall), math.inf)


def ratio_of_means(values: Sequence[float], of: Sequence[float]) -> tuple[float, float | None]:
    """mean(values) / mean(of) and the half-width of its interval: Student's over the residuals
    values - ratio · of, the usual linearisation of a ratio estimator."""
    below = statistics.mean(of)
    if below == 0:
        return math.inf, None
    found = statistics.mean(values) / below
    _, half = mean_interval([v - found * o for v, o in zip(values, of, strict=True)])
    return found, None if half is None else half / below


def said(values: Sequence[float]) -> str:
    middle, half = mean_interval(values)
    return f"{middle:.3g}" if half is None else f"{middle:.3g} ± {half:.2g}"


def curve(fits: list[Fit]) -> dict[str, list[float]]:
    """Validation R@1 in percent of the weights held, at moments evenly apart in log time: `mean`,
    `low` and `high` over the seeds; a seed has 0 before its first evaluation."""
    first = min(f["trajectory"][0][0] for f in fits)
    last = max(f["seconds"] for f in fits)
    moments = [first * (last / first) ** (i / (POINTS - 1)) for i in range(POINTS)]
    shown = [[held_at(f, moment) for f in fits] for moment in moments]
    return {
        "seconds": [float(f"{m:.4g}") for m in moments],
        "mean": [round(statistics.mean(values), 2) for values in shown],
        "low": [round(min(values), 2) for values in shown],
        "high": [round(max(values), 2) for values in shown],
    }


def held_at(one: Fit, moment: float) -> float:
    shown = [100 * r1 for seconds, r1 in held(one) if seconds <= moment * (1 + 1e-9)]
    return shown[-1] if shown else 0.0


def plot(rows: Sequence[Row], figure: Figure) -> None:
    """Above, validation R@1 against time at each set's largest size; below, test R@1 against
    size."""
    names = list(dict.fromkeys(r.details["set"] for r in rows if "set" in r.details))
    figure.set_size_inches(10, 6.5)
    axes = figure.subplots(2, len(names), squeeze=False)
    for column, name in enumerate(names):
        own = [r for r in rows if r.details.get("set") == name]
        largest = max((r for r in own if "curves" in r.details), key=lambda r: r.details["pairs"])
        draw_time(axes[0][column], largest)
        draw_sizes(axes[1][column], [r for r in own if "r1" in r.details])
    axes[0][0].set_ylabel("validation R@1, %")
    axes[1][0].set_ylabel("test R@1, %")
    axes[0][0].legend(fontsize=8)
    axes[1][0].legend(fontsize=8)


def draw_time(axes: Axes, row: Row) -> None:
    for name, line in row.details["curves"].items():
        axes.plot(line["seconds"], line["mean"], color=COLOURS[name], label=name)
        axes.fill_between(
            line["seconds"], line["low"], line["high"], color=COLOURS[name], alpha=0.2, linewidth=0
        )
    axes.set_xscale("log")
    axes.set_xlabel("seconds")
    axes.set_title(f"{row.details['set']}, {row.details['pairs']:,} pairs", fontsize=10)


def draw_sizes(axes: Axes, rows: Sequence[Row]) -> None:
    for scorer, style in zip(SCORERS, ("--", "-"), strict=True):
        shown = sorted(
            (r.details for r in rows if r.details["scorer"] == scorer), key=lambda d: d["pairs"]
        )
        for name, colour in COLOURS.items():
            middles, halves = zip(*(d["r1"][name] for d in shown), strict=True)
            axes.errorbar(
                [d["pairs"] for d in shown],
                middles,
                [half or 0.0 for half in halves],
                color=colour,
                linestyle=style,
                marker=".",
                capsize=2,
                label=f"{name}, {scorer}",
            )
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("pairs")
