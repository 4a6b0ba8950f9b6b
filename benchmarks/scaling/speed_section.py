"""The section on time to the recall of the published recipe."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from benchmarks.scaling.cells import PUBLISHED
from benchmarks.scaling.speed import HIGHER, SOONER, Race, geometric
from benchmarks.scaling.tables import NOT_MEASURED, markdown
from fusemix_core.benchmark.advice import seconds_text
from fusemix_core.benchmark.config import DEFAULT


def time_section(found: Sequence[Race]) -> list[str]:
    """Time to the recall at which the published recipe ends, and R@1 within its time."""
    out = [f"## Time to the recall of `{PUBLISHED}`", ""]
    if not found:
        return [*out, f"Not measured: `{DEFAULT}` and `{PUBLISHED}` have no set in common.", ""]
    out += [
        fill(
            f"How long `{DEFAULT}` takes to reach the validation R@1 (by cosine) at which "
            f"`{PUBLISHED}` ends, and how many times longer `{PUBLISHED}` takes: its whole "
            "training, and in brackets until it first had that recall. Seconds are medians over "
            "seeds, ratios geometric means. R@1 × is the ratio of R@1 by the chosen scorer within "
            f"the time of `{PUBLISHED}`.",
            100,
        ),
        "",
    ]
    heads = ["set", "pairs", f"`{PUBLISHED}` ends at", "after", f"`{DEFAULT}` there after"]
    rows = [
        [
            r.title,
            f"{r.pairs:,}",
            f"{r.end:.1f} %",
            _whole(r),
            _until(r),
            _ratio(r),
            _recall(r),
        ]
        for r in found
    ]
    out += markdown([*heads, "times sooner", "R@1 ×"], rows)
    return [*out, *_bars(found)]


def _whole(r: Race) -> str:
    text = seconds_text(r.whole)
    return text if r.cut is None else f"{text} ({100 * r.cut:.0f}% of its own steps)"


def _until(r: Race) -> str:
    parts = []
    if r.until is not None:
        parts.append(f"{'at most ' * r.bound}{seconds_text(r.until)}")
    if r.missed:
        parts.append(f"never in {r.missed} of {r.seeds} seeds")
    return "; ".join(parts)


def _ratio(r: Race) -> str:
    if r.ratio is None:
        return "not reached"
    own = f" [{times(r.own)}]" if r.own else ""
    return f"{'at least ' * r.bound}{times(r.ratio)}{own}"


def times(value: float) -> str:
    """`6,013`, `60`, `1.5`."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _recall(r: Race) -> str:
    if r.recall is None:
        return NOT_MEASURED
    ceiling = r.published * HIGHER.limit > 100
    return f"{r.recall:.2f} ({r.recall_on}{', ceiling' * ceiling})"


def _bars(found: Sequence[Race]) -> list[str]:
    """Met or missed, for both bars, in one sentence each. They are about trainings that went on to
    their own end."""
    cut = [r for r in found if r.cut is not None]
    whole = [r for r in found if r.cut is None]
    out = []
    if cut:
        out.append(
            f"- In {len(cut)} of {len(found)} a limit on time ended `{PUBLISHED}` before its own "
            "schedule. Without the limit it takes longer and may end higher, so that the bars are "
            "not about these."
        )
    if not whole:
        return [*out, f"- Bars {SOONER} and {HIGHER}: not measured.", ""]
    return [*out, *_sooner(whole), *_higher(whole), ""]


def _sooner(found: Sequence[Race]) -> list[str]:
    there = [r for r in found if r.ratio is not None]
    if not there:
        return [f"- `{DEFAULT}` never gets there. Bar {SOONER}: **MISSED**."]
    mean = geometric([r.ratio for r in there])
    met = SOONER.met(mean) and len(there) == len(found)
    lost = (
        ""
        if len(there) == len(found)
        else (f"; without the {len(found) - len(there)} where some seed never gets there")
    )
    bound = " at least" if any(r.bound for r in there) else ""
    return [
        f"- Geometric mean over {len(there)} of {len(found)} sets and sizes:{bound} "
        f"{times(mean)} times sooner{lost}. Bar {SOONER}: {'met' if met else '**MISSED**'}."
    ]


def _higher(found: Sequence[Race]) -> list[str]:
    known = [r for r in found if r.recall is not None]
    short = [r for r in known if not HIGHER.met(r.recall)]
    met = len(known) == len(found) and not short
    out = [
        f"- R@1 within its time at least {HIGHER.limit:g} times as high: in "
        f"{len(known) - len(short)} of {len(found)} sets and sizes. Bar {HIGHER} everywhere: "
        f"{'met' if met else '**MISSED**'}."
    ]
    for r in short:
        why = (
            f"{HIGHER.limit:g} times would be more than 100%: a ceiling"
            if r.published * HIGHER.limit > 100
            else f"`{PUBLISHED}` has {r.published:.1f} on test"
        )
        out.append(f"    - {r.title}, {r.pairs:,} pairs: {r.recall:.2f}; {why}.")
    return out
