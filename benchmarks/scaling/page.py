"""docs/scaling.md from the kept lines: sections in order, and the figures beside them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from benchmarks.scaling import figures
from benchmarks.scaling.about import About, Method, Tuning, configured, tuning
from benchmarks.scaling.advice import which_table
from benchmarks.scaling.cells import LINEAR, PUBLISHED, Setting, clock_of, of_recipe, settings_of
from benchmarks.scaling.hard import hard_section
from benchmarks.scaling.speed import races
from benchmarks.scaling.speed_section import time_section
from benchmarks.scaling.tables import (
    NOT_MEASURED,
    SCORERS,
    difference_table,
    differences,
    markdown,
    overtaking,
    recall_table,
    verdict,
)
from fusemix_core.benchmark.advice import Place
from fusemix_core.benchmark.config import DEFAULT
from fusemix_core.benchmark.lines import Line
from fusemix_core.benchmark.page import mean_text
from fusemix_core.evaluation.seeds import mean_interval

NOTE = "<!-- Made by python -m benchmarks.scaling; change the results or the code, then run it. -->"
CLOCKS = {
    "cpu_seconds": "of all cores together (CPU time, which other work on a machine lengthens)",
    "seconds": "on the clock of a machine that may have done other work too",
}
FIGURES = "scaling"
"""The folder of the figures, beside the page."""


def page(
    lines: Sequence[Line], hard: Sequence[Line], about: About, advised: Sequence[Place]
) -> str:
    """The page. `lines` are those of the curves, `hard` those of the hard cases, `advised` what
    the packaged advice is taken from."""
    settings = settings_of(lines)
    cells = differences(settings)
    parts = [
        NOTE,
        "",
        "# Recall against pairs and seconds",
        "",
        *introduction(lines, settings),
        *which_table(advised),
        f"## Is `{DEFAULT}` the best at every size?",
        "",
        *verdict(cells),
        *(line for s in settings for line in set_section(s, cells, about)),
        "## Where training by gradient overtakes closed forms",
        "",
        fill(
            "The first size at which a method trained by gradient is above the best closed form "
            "by the chosen scorer, beyond the paired 95% interval. If there is none: the "
            f"difference at the largest size. `{DEFAULT}` is neither.",
            100,
        ),
        "",
        *overtaking(settings),
        *time_section(races(settings)),
        *zero_shot_section(settings),
        *hard_section(hard, about),
        *shaping_section(settings, about),
        *tuning_section(configured(), tuning()),
        *failures(settings),
    ]
    return "\n".join(parts).rstrip("\n") + "\n"


def draw(lines: Sequence[Line], folder: Path, suffix: str = "svg") -> list[Path]:
    """The figures of every setting, in `folder`."""
    settings = settings_of(lines)
    style, written = figures.styles(settings), []
    for setting in settings:
        for name, plot in (("pairs", figures.draw_pairs), ("seconds", figures.draw_seconds)):
            written.append(folder / f"{setting.slug}-{name}.{suffix}")
            plot(setting, style, written[-1])
    return written


def introduction(lines: Sequence[Line], settings: Sequence[Setting]) -> list[str]:
    """What was measured, how, and on what."""
    seeds = len({line["seed"] for line in lines})
    most = max((s.sizes[-1].pairs for s in settings), default=0)
    sets = f"{len(settings)} set{'s' * (len(settings) != 1)}"
    texts = [
        f"Every method on the same cached latents of {sets}, with up to {most:,} pairs. R@1 is in "
        "percent on test: the mean of both directions and of up to "
        f"{seeds} seed{'s' * (seeds != 1)}. All methods have the same splits and the same rule: "
        "weights and scorer are chosen by mean recall on validation, then test is measured once. "
        f"{counted(lines)} Seconds are the median of a fit without encoding, "
        f"{CLOCKS[clock_of(lines)]}. "
        f"{NOT_MEASURED} means not measured; nothing is extrapolated.",
        *limits(lines),
        "± is half of a 95% interval: Student's if each seed has its own split, otherwise a "
        "bootstrap over the test items. Differences have paired intervals, in brackets: a "
        "bootstrap over seeds and linked groups of test items, or Student's over the seeds if "
        "the results don't record which queries were answered right.",
    ]
    versions: dict[str, str] = {}
    for line in lines:
        versions |= line["versions"]
    listed = ", ".join(f"{dist} {version}" for dist, version in sorted(versions.items()))
    found = [line["environment"] for line in lines if "environment" in line]
    where = "; ".join(sorted({f"{e['cpu']}, {e['cpus']} cores" for e in found}))
    out = [line for text in texts for line in (fill(text, 100), "")]
    return [*out, f"{listed}. Measured on: {where or 'not stated'}.", ""]


def counted(lines: Sequence[Line]) -> str:
    """What a size counts."""
    whole = {bool(line.get("whole_validation")) for line in lines}
    fitted = "the pairs to fit on, and the validation split is whole at every size"
    both = "the pairs to fit and choose on"
    if whole == {True}:
        return f"Sizes count {fitted}."
    own = {line["set"] for line in lines if line.get("whole_validation")}
    of = f"; those of {', '.join(f'`{n}`' for n in sorted(own))} count {fitted}" if own else ""
    return f"Sizes count {both}{of}."


def limits(lines: Sequence[Line]) -> list[str]:
    """The batch of a training by gradient, and how long it could take."""
    batches = sorted({line.get("batch") or 0 for line in lines})
    texts = []
    if len(batches) == 1 and batches[0]:
        texts.append(f"A training by gradient sees {batches[0]:,} pairs a step, after mixing.")
    given = {tuple(sorted(line["limited"].items())) for line in lines if line.get("limited")}
    for limit in sorted(map(dict, given), key=str):
        if limit.get("times"):
            most = f"{limit['times']:g} times the CPU time of `{limit['of']}` on the same pairs"
        else:
            most = f"{limit['seconds']:g} s"
        texts.append(f"It has its recipe's own schedule, or a shorter one that ends after {most}.")
    return [" ".join(texts)] if texts else []


def set_section(setting: Setting, cells: Sequence, about: About) -> list[str]:
    text = about.text(setting.set)
    out = [f"## {setting.set}: {setting.label}", ""]
    out += [fill(text, 100), ""] if text else []
    for name, what in (("pairs", "R@1 against pairs"), ("seconds", "R@1 against seconds")):
        out += [f"![{setting.set}: {what}]({FIGURES}/{setting.slug}-{name}.svg)", ""]
    for scorer in reversed(SCORERS):
        out += recall_table(setting, scorer)
        out += difference_table(setting, cells, scorer)
    return out


def zero_shot_section(settings: Sequence[Setting]) -> list[str]:
    """Top-1 of the default beside linear CCA."""
    rows = []
    for setting in settings:
        for at in setting.sizes:
            ours, theirs = at.entries.get(DEFAULT), of_recipe(at, LINEAR)
            if ours is None or theirs is None:
                continue
            names = dict.fromkeys(n for line in ours.lines.values() for n in line["zero_shot"])
            for name in names:
                first, second = ours.zero_shot(name), theirs.zero_shot(name)
                both = [s for s in first if s in second]
                if both:
                    place = [name, setting.title, f"{at.pairs:,}"]
                    rows.append([*place, *_zero_shot([(first[s], second[s]) for s in both])])
    out = ["## Zero-shot classification", ""]
    if not rows:
        return [*out, f"Not measured for `{DEFAULT}` and linear CCA together.", ""]
    behind = sum(row[-1].endswith("▼") for row in rows)
    out += [
        fill(
            "Top-1 in percent by the chosen scorer. The models were fitted on the pairs of the "
            "set. Seeds share the classified items: intervals are Student's over the fits.",
            100,
        ),
        "",
    ]
    heads = ["classes", "fitted on", "pairs", f"`{DEFAULT}`", "linear CCA", "difference"]
    out += markdown(heads, rows)
    bar = "met" if not behind else "**MISSED**"
    return [
        *out,
        f"`{DEFAULT}` is behind linear CCA beyond the interval in {behind} of {len(rows)}: {bar}.",
        "",
    ]


def _zero_shot(pairs: Sequence[tuple[float, float]]) -> list[str]:
    ours, theirs = zip(*pairs, strict=True)
    mean, half = mean_interval([a - b for a, b in pairs])
    text = mean_text((mean, half)).replace("-", "−")
    behind = half is not None and mean < -half
    return [
        f"{statistics.fmean(ours):.1f}",
        f"{statistics.fmean(theirs):.1f}",
        f"**{text}** ▼" if behind else text,
    ]


def shaping_section(settings: Sequence[Setting], about: About) -> list[str]:
    """Which sets shaped the default, and which only confirm it."""
    names = list(dict.fromkeys(s.set for s in settings))
    groups = (
        ("We looked at validation splits of these while we shaped the default", True),
        ("We did not look at these: they confirm it", False),
        ("Not stated", None),
    )
    out = [f"## What shaped `{DEFAULT}`", ""]
    for text, shaped in groups:
        own = [f"`{n}`" for n in names if about.shaped(n) is shaped]
        if own or shaped is not None:
            out.append(f"- {text}: {', '.join(own) or 'none'}.")
    return [*out, ""]


def tuning_section(methods: Sequence[Method], how: Tuning | None) -> list[str]:
    """The settings of the tuned methods."""
    out = ["## The settings of the others", ""]
    tried = how.tried if how else {}
    rows = [
        [
            f"`{m.label}`",
            f"`{m.recipe}`",
            " ".join(f"`{s}`" for s in m.settings) or "as registered",
            str(tried.get(m.recipe, NOT_MEASURED)) if m.settings or m.label != PUBLISHED else "1",
        ]
        for m in methods
        if m.settings or m.recipe in tried
    ]
    if not rows or how is None:
        return [*out, "Every recipe as it is registered.", ""]
    budget = f"{how.seconds:g} s a fit" if how.seconds else "no limit"
    sets = " and ".join(f"`{n}`" for n in how.sets)
    text = (
        "The best of the settings we tried, by mean recall on validation: "
        f"{budget}, {how.seeds} seed{'s' * (how.seeds != 1)}, on {sets}. Recipes that are not "
        "listed choose their settings on validation in each fit, or have none. "
        f"`{PUBLISHED}` is the recipe as published."
    )
    heads = ["method", "recipe", "settings", "tried"]
    return [*out, fill(text, 100), "", *markdown(heads, rows)]


def failures(settings: Sequence[Setting]) -> list[str]:
    lines = [f"- {s.set}, {text}" for s in settings for text in s.failed]
    return ["## What failed", "", *lines, ""] if lines else []
