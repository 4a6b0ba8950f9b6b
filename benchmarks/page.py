"""docs/benchmarks.md and its plots, from the kept results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.page import gpu_section
from benchmarks.harness import Row
from benchmarks.results import load, read, verdict

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PLOTS = PAGE.parent / "benchmarks"


def write_page(names: Sequence[str]) -> None:
    """Write the page; a benchmark without a kept result is left out."""
    PAGE.write_text(page(names))


def page(names: Sequence[str]) -> str:
    lines = [
        "# Benchmarks",
        "",
        "Made by `python -m benchmarks` from `benchmarks/results/`. Every figure stands beside its",
        "reference, measured in turn with it in the same process; ratios are medians over the",
        "turns.",
        "",
    ]
    for name in names:
        found = read(name)
        if found is None:
            continue
        machine, rows = found
        module = load(name)
        lines += [f"## {module.TITLE}", "", module.ABOUT.strip(), "", *table(rows), ""]
        if hasattr(module, "plot"):
            lines += [f"![{module.TITLE}](benchmarks/{draw(name, rows)})", ""]
        lines += [
            f"{machine['processor']}; {machine['threads']} threads of {machine['cores']} cores, "
            f"{machine['memory_gb']} GB; torch {machine['torch']}; {machine['date']}.",
            "",
        ]
    lines += gpu_section()
    return "\n".join(lines).rstrip("\n") + "\n"


def table(rows: Sequence[Row]) -> list[str]:
    lines = ["| what | measured | against | ratio | bar | |", "|---|---|---|---|---|---|"]
    for row in rows:
        against = ("", "", "", "")
        if row.ratio is not None:
            bar = (str(row.bar), verdict(row)) if row.bar else ("", "")
            against = (row.reference, f"{row.ratio:.3g}", *bar)
        lines.append(f"| {row.name} | {row.value:.4g} {row.unit} | {' | '.join(against)} |")
    return lines


def draw(name: str, rows: Sequence[Row]) -> str:
    """Have the benchmark draw its plot; the file's name."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "fusemix"  # the same rows, the same file
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    load(name).plot(rows, figure)
    PLOTS.mkdir(exist_ok=True)
    figure.savefig(PLOTS / f"{name}.svg", metadata={"Date": None})
    return f"{name}.svg"
