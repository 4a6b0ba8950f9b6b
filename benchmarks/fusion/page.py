"""docs/fusion.md from the results that are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "fusion.md"
WHAT = {
    "gbmlgg": (
        "brain tumours (TCGA GBMLGG)",
        "RNA, copy number, mutations, age and sex → survival",
    ),
    "kirc": ("kidney tumours (TCGA KIRC)", "RNA, copy number, mutations, age and sex → survival"),
    "blca": ("bladder tumours (TCGA BLCA)", "RNA, copy number, mutations, age and sex → survival"),
    "mfeat": ("handwritten digits (mfeat)", "six feature tables → the digit"),
    "openstax": ("textbook figures (OpenStax)", "image and alternative text → the book"),
    "esol": ("solubility (ESOL)", "molecule and six descriptors → log solubility"),
    "tox21": ("toxicity (Tox21)", "molecule and eight descriptors → twelve assays"),
}
_CLAIMS = (
    "merged over the best modality",
    "merged over merged without the Fourier transform",
    "fused over merged",
    "merged over `stack`",
)
"""What the differences in lego.json are, in their order."""
_HEAD = """# Predicting from several modalities, measured

`fusemix fuse` was run on seven labelled sets with its defaults, by five folds. Rows of one group
(a patient, a chapter, an image) are in one fold. In each fold the fuser is chosen on validation
rows, and the test rows are measured once. Intervals are of rows, or groups of rows, that are drawn
with replacement.

"""


def write(results: Path) -> None:
    """Write the page from results/fusion/*.json."""
    found = {name: _read(results / f"{name}.json") for name in WHAT}
    found = {name: one for name, one in found.items() if one is not None}
    parts = [_HEAD + _summary(found)]
    parts += [_set(name, one) for name, one in found.items()]
    if (lego := _read(results / "lego.json")) is not None:
        parts.append(_lego(lego))
    if (speed := _read(results / "speed.json")) is not None:
        parts.append(_speed(speed))
    PAGE.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


def _summary(found: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| set | metric | best modality by itself | all together | gain (95% interval) | fuser |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        metric, gain = one["task"]["metric"], one["gain"]
        low, high = gain["interval"]
        lines.append(
            f"| {WHAT[name][0]}, {one['rows']:,} rows | {metric} | {one['single']} "
            f"{gain['second']:.3f} | {gain['first']:.3f} | {gain['value']:+.3f} "
            f"({low:+.3f} to {high:+.3f}) | {one['fuser']} |"
        )
    return "\n".join(lines) + "\n"


def _set(name: str, one: dict[str, Any]) -> str:
    title, what = WHAT[name]
    metric = one["task"]["metric"]
    names = [key for key, v in one["candidates"][one["fuser"]]["metrics"].items() if v is not None]
    lines = [
        f"## {title[0].upper()}{title[1:]}\n",
        f"{what[0].upper()}{what[1:]}; {one['rows']:,} rows, {one['cpu_seconds']:.0f} CPU seconds "
        f"for everything on this page, encoding included. {one['verdict']}\n",
        f"| predicted from | {' | '.join(names)} | 95% interval of {metric} | seconds |",
        "|" + "---|" * (len(names) + 3),
    ]
    for label, row in one["candidates"].items():
        mark = " (chosen)" if label == one["fuser"] else ""
        cells = [_number(row["metrics"].get(key)) for key in names]
        span = row["interval"]
        shown = "–" if span is None else f"{span[0]:.3f} to {span[1]:.3f}"
        seconds = f"{row['seconds']:.1f}" if row["seconds"] else "–"
        lines.append(f"| {label}{mark} | {' | '.join(cells)} | {shown} | {seconds} |")
    lines += [
        "",
        f"| modality | share of {metric} (95% interval) | by itself | beside the others |",
    ]
    lines += ["|---|---|---|---|"]
    for label, share in one["shares"].items():
        low, high = share["interval"]
        lines.append(
            f"| {label} | {share['value']:.3f} ({low:.3f} to {high:.3f}) | {share['first']:+.3f} "
            f"| {share['last']:+.3f} |"
        )
    rates = ", ".join(f"{100 * rate:.0f}%: {value:.3f}" for rate, value in one["by_missing"])
    lines += ["", f"{metric} when entries are missing at random: {rates}."]
    if one["conformal"]:
        lines.append(
            f"Prediction sets that should contain the truth for 90% of rows contain it for "
            f"{100 * one['conformal']['coverage']:.1f}%."
        )
    return "\n".join(lines) + "\n"


def _lego(one: dict[str, Any]) -> str:
    shares = one["shares"]
    heads = " | ".join(f"{float(share):.0%} paired" for share in shares)
    lines = [
        "## MM-Lego's claims\n",
        "On the brain tumours, with the same folds. Of the training rows a share is paired, with "
        "all modalities; each other row has one, drawn at random. Test rows are complete. The "
        "cells are c with its 95% interval.\n",
        f"| predicted from | {heads} |",
        "|" + "---|" * (len(shares) + 1),
    ]
    for name in next(iter(shares.values()))["candidates"]:
        cells = []
        for found in shares.values():
            value, span = found["candidates"][name]
            mark = "" if span is None else f" ({span[0]:.3f} to {span[1]:.3f})"
            cells.append(f"{value:.3f}{mark}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"| difference in c (95% interval) | {heads} | |",
        "|" + "---|" * (len(shares) + 2),
    ]
    for k, claim in enumerate(_CLAIMS):
        gains = [found["differences"][k][2] for found in shares.values()]
        cells = [f"{g['value']:+.3f} ({_span(g['interval'])})" for g in gains]
        lines.append(f"| {claim} | {' | '.join(cells)} | {_verdict(gains)} |")
    return "\n".join(lines) + "\n"


def _span(interval: list[float]) -> str:
    low, high = interval
    return f"{low:+.3f} to {high:+.3f}"


def _verdict(gains: list[dict[str, Any]]) -> str:
    """At how many of the shares an interval is above or below 0."""
    better = sum(gain["interval"][0] > 0 for gain in gains)
    worse = sum(gain["interval"][1] < 0 for gain in gains)
    found = [f"better at {better}"] * bool(better) + [f"worse at {worse}"] * bool(worse)
    return f"{' and '.join(found)} of {len(gains)}" if found else "no difference"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _speed(one: dict[str, Any]) -> str:
    widths = ", ".join(f"{name} {width}" for name, width in one["widths"].items())
    return (
        "## Speed\n\n"
        f"{one['rows']:,} generated rows of three modalities ({widths} numbers), five folds: all "
        f"candidates and all {one['subsets']} subsets took {one['all_seconds']:.0f} s on two cores "
        f"({one['cpu_seconds']:.0f} CPU seconds), from cached latents.\n"
    )
