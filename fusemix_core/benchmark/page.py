"""A benchmark as people read it: tables, who wins where, and plots with intervals."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from fusemix_core.benchmark.columns import PAIRED, SCORERS, column, columns, intervals_of
from fusemix_core.benchmark.config import DEFAULT
from fusemix_core.benchmark.lines import CHOSEN, Line
from fusemix_core.benchmark.summary import Entry, Place, Verdict, summarise, verdicts
from fusemix_core.evaluation.seeds import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Setting = tuple[str, str]
"""A set and the label of its encoders."""


def write_report(lines: Sequence[Line], folder: Path, name: str = "report.md") -> Path:
    """The page `folder/name`, and its plots beside it."""
    entries = summarise(lines)
    plots = {}
    for setting in settings(entries):
        plots[setting] = f"{slug(setting)}.svg"
        draw(of_setting(entries, setting), folder / plots[setting])
    path = folder / name
    path.write_text(
        "# Benchmark\n\n" + "\n".join(page(entries, lines, plots)) + "\n", encoding="utf-8"
    )
    return path


def page(
    entries: Sequence[Entry], lines: Sequence[Line], plots: Mapping[Setting, str], level: int = 2
) -> list[str]:
    """Lines of Markdown: how it was measured, who wins, and a section per set and encoders, with
    headings of that level."""
    found = verdicts(entries)
    out = [*protocol(lines, entries), "", *overview(found), ""]
    for setting in settings(entries):
        own = of_setting(entries, setting)
        out += [f"{'#' * level} {setting[0]}: {setting[1]}", "", *table(own), ""]
        if setting in plots:
            out += [f"![{setting[0]}, {setting[1]}]({plots[setting]})", ""]
        out += [*(f"- {c.short_sentence}" for c in columns(own)), ""]
        out += [*(sentence(v) for v in found if (v.place.set, v.place.label) == setting), ""]
        out += searched_table(own)
        out += zero_shot_table(own)
        out += failures(own)
    return out


def settings(entries: Sequence[Entry]) -> list[Setting]:
    return list(dict.fromkeys((e.place.set, e.place.label) for e in entries))


def of_setting(entries: Sequence[Entry], setting: Setting) -> list[Entry]:
    return [e for e in entries if (e.place.set, e.place.label) == setting]


def protocol(lines: Sequence[Line], entries: Sequence[Entry]) -> list[str]:
    """How the figures were made, from what the lines say."""
    seeds = len({line["seed"] for line in lines})
    text = (
        "Test R@1 in percent, mean of both directions; means over "
        f"{seeds} seed{'s' * (seeds > 1)}. {' '.join(intervals_of(entries))} {PAIRED} "
        "Bold: the highest mean, and whatever is not shown to differ from it. All methods have the "
        "same cached latents, splits and rule of choice: weights, and the scorer in the columns "
        "*chosen*, by mean recall on validation, then test once. Sizes count the pairs to fit and "
        "choose on; s are seconds of a fit. Zero-shot intervals are over the fits only, which "
        "share the items."
    )
    given = {n: {line[n] for line in lines} for n in ("batch", "budget")}
    same = {n: f"{v.pop():,}" for n, v in given.items() if len(v) == 1 and None not in v}
    if same:
        what = {"batch": "pairs a step", "budget": "pairs in all"}
        counts = ", ".join(f"{number} {what[n]}" for n, number in same.items())
        text += f" Training by gradient sees {counts}."
    if replaced := replaced_batches(lines):
        text += f" The benchmark's pairs a step replace those of the recipe: {replaced}."
    if any("searched" in line for line in lines):
        text += (
            " Settings of a method were searched on validation within one budget for all; test was "
            "measured once, with those chosen."
        )
    versions: dict[str, str] = {}
    for line in lines:
        versions |= line["versions"]
    listed = ", ".join(f"{dist} {version}" for dist, version in sorted(versions.items()))
    return [fill(text, 120), "", f"Versions: {listed}."]


def replaced_batches(lines: Iterable[Line]) -> str:
    """Methods whose recipe has another batch than the benchmark gave them: `sail` 4,096."""
    own = {}
    for line in lines:
        batch = (line.get("recipe", {}).get("training") or {}).get("batch_size")
        if line["batch"] and batch and batch != line["batch"]:
            own[line["method"]] = f"`{line['method']}` {batch:,}"
    return ", ".join(own.values())


def searched_table(entries: Sequence[Entry]) -> list[str]:
    """The settings that a search chose, by method, size and seed, and the gain on validation."""
    rows = [
        (e, seed, line["searched"])
        for e in entries
        for seed, line in e.lines.items()
        if "searched" in line
    ]
    if not rows:
        return []
    out = [
        "| settings searched on validation | pairs | seed | tried | chosen | mean recall, % | s |",
        "|---" * 7 + "|",
    ]
    for entry, seed, found in rows:
        chosen = ", ".join(f"`{c}`" for c in found["chosen"]) or "its own"
        tried = f"{len(found['tried'])} of {found['of']}"
        out.append(
            f"| {entry.method} | {entry.pairs:,} | {seed} | {tried} | {chosen} | "
            f"{gained(found)} | {found['seconds']:.3g} |"
        )
    return [*out, ""]


def gained(found: Mapping[str, Any]) -> str:
    """Validation's mean recall of the own settings and of those chosen: `39.8 → 41.2`."""
    scores = [t["validation"] for t in found["tried"] if "validation" in t]
    own = found["tried"][0].get("validation")
    first = "failed" if own is None else f"{own:.1f}"
    return first if not found["chosen"] else f"{first} → {max(scores):.1f}"


def overview(found: Sequence[Verdict]) -> list[str]:
    """Who wins how often, and where the default loses."""
    if not found:
        return ["Nothing was measured."]
    ordered = Counter(v.best for v in found).most_common()
    ties = Counter(v.best for v in found if v.tied)
    listed = ", ".join(
        f"`{m}` in {n}" + (f" (in {ties[m]} a tie)" if m in ties else "") for m, n in ordered
    )
    places = "1 place" if len(found) == 1 else f"{len(found)} places"
    out = [f"Highest mean in {places} (set, encoders, size): {listed}."]
    if any(v.default is not None for v in found):
        beaten = [v for v in found if v.ahead]
        sure = f"`{DEFAULT}` is behind beyond the noise (95%) in {len(beaten)} of them."
        out += ["", sure, ""]
        out += [
            f"- {where(v)}: behind "
            + ", ".join(f"`{m}` by {mean_text(v.against[m])}" for m in v.ahead)
            for v in beaten
        ]
        out += [
            f"- {where(v)}: `{v.best}` has the higher mean, by {mean_text(v.against[v.best])}, "
            "which is not beyond the noise"
            for v in found
            if v.best in v.against and not v.ahead
        ]
    return out


def where(verdict: Verdict) -> str:
    return f"{verdict.place.set}, {verdict.place.label}, {verdict.pairs:,} pairs"


def sentence(verdict: Verdict, of: str = "") -> str:
    """Who is best at a place, and how the default stands to the nearest rival."""
    text = f"- {of}{verdict.pairs:,} pairs: best `{verdict.best}`, {verdict.value:.1f}"
    if verdict.default is None:
        return text + "."
    if verdict.best != DEFAULT:
        text += f"; `{DEFAULT}` {verdict.default:.1f}"
        if verdict.best in verdict.against:  # they have seeds in common
            text += f", behind by {mean_text(verdict.against[verdict.best])}"
    elif verdict.against:
        rival = max(verdict.against, key=lambda m: verdict.against[m][0])
        mean, half = verdict.against[rival]
        text += f"; ahead of `{rival}` by {mean_text((-mean, half))}"
    return text + "."


def mean_text(found: tuple[float, float | None]) -> str:
    """`12.3 ± 0.4`."""
    mean, half = found
    return f"{mean:.1f}" if half is None else f"{mean:.1f} ± {half:.1f}"


def table(entries: Sequence[Entry]) -> list[str]:
    """A row a method; for each size R@1 by cosine and by the scorer chosen; seconds of a fit."""
    sizes = list(dict.fromkeys(e.place for e in entries if e.lines))
    heads, cells = ["method"], []
    for place in sizes:
        pairs = round(max(e.pairs for e in entries if e.place == place and e.lines))
        for scorer in SCORERS:
            heads.append(f"{pairs:,}: {scorer}")
            cells.append(_column(entries, place, scorer))
        heads.append(f"{pairs:,}: s")
        cells.append(
            {e.method: f"{e.seconds:.3g}" for e in entries if e.place == place and e.lines}
        )
    out = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for method in dict.fromkeys(e.method for e in entries):
        row = [one.get(method, "–") for one in cells]
        out.append(f"| {method} | {' | '.join(row)} |")
    return out


def _column(entries: Sequence[Entry], place: Place, scorer: str) -> dict[str, str]:
    """method → its cell; the best, and those that tie with it, in bold."""
    found = {e.method: e.interval(scorer) for e in entries if e.place == place and e.lines}
    bold = column(entries, place, scorer).leaders
    return {m: f"**{mean_text(v)}**" if m in bold else mean_text(v) for m, v in found.items()}


def zero_shot_table(entries: Sequence[Entry]) -> list[str]:
    """Top-1 by the scorer chosen, at each size, and who is best."""
    names = list(
        dict.fromkeys(n for e in entries for line in e.lines.values() for n in line["zero_shot"])
    )
    if not names:
        return []
    places = list(dict.fromkeys(e.place for e in entries if e.lines))
    pairs = {p: max(e.pairs for e in entries if e.place == p and e.lines) for p in places}
    heads = ["zero-shot top-1, %", *(f"{n}, {pairs[p]:,} pairs" for n in names for p in places)]
    out = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for method in dict.fromkeys(e.method for e in entries if e.lines):
        of = {e.place: e for e in entries if e.method == method and e.lines}
        cells = [_top1(of.get(p), n) for n in names for p in places]
        out.append(f"| {method} | {' | '.join(cells)} |")
    sentences = [sentence(v, f"{n}, ") for n in names for v in verdicts(entries, zero_shot=n)]
    return [*out, "", *sentences, ""]


def _top1(entry: Entry | None, name: str) -> str:
    found = entry.zero_shot(name) if entry else None
    return mean_text(mean_interval(list(found.values()))) if found else "–"


def failures(entries: Sequence[Entry]) -> list[str]:
    """What did not run, and why."""
    lines = dict.fromkeys(
        f"- `{e.method}` failed: {message.splitlines()[0]}"
        for e in entries
        for message in e.errors.values()
    )
    return [*lines, ""] if lines else []


def slug(setting: Setting) -> str:
    return re.sub(r"[^a-z0-9]+", "-", " ".join(setting).lower()).strip("-")


def draw(entries: Sequence[Entry], path: Path) -> None:
    """Left R@1 against the number of pairs, right R@1 at the largest against the time of a fit."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "fusemix"}):  # the same figures, the same file
        figure = Figure(figsize=(10, 4.5), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        shown = [e for e in entries if e.lines]
        methods = list(dict.fromkeys(e.method for e in shown))
        palette = matplotlib.colormaps["tab20"]
        colours = [palette(i) for i in range(palette.N)]
        for number, method in enumerate(methods):
            style: dict[str, Any] = {
                "color": colours[number % len(colours)],
                "marker": "os^Dv"[number // 20 % 5],
            }
            if method == DEFAULT:
                style = {"color": "black", "marker": "o", "zorder": 5}
            _curve(left, right, [e for e in shown if e.method == method], method, style)
        left.set(xscale="log", xlabel="pairs", ylabel="test R@1, %")
        right.set(xscale="log", xlabel="seconds of a fit, all pairs")
        left.set_ylim(bottom=0)
        figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=7)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def _curve(
    left: Axes, right: Axes, entries: Sequence[Entry], method: str, style: Mapping[str, object]
) -> None:
    own = sorted(entries, key=lambda e: e.pairs)
    means, halves = zip(*(e.interval(CHOSEN) for e in own), strict=True)
    bars = [half or 0.0 for half in halves]
    common: dict[str, Any] = {"capsize": 2, "linewidth": 1, "markersize": 4, **style}
    left.errorbar([e.pairs for e in own], means, bars, label=method, **common)
    right.errorbar([own[-1].seconds], means[-1:], bars[-1:], **common)
