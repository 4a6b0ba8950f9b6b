"""A picture of a ranking: each measure and the closed-form recall, encoders by encoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fusemix_core.errors import ConfigError

if TYPE_CHECKING:
    from fusemix_core.jobs.rank import Pairing, Ranking

FORMS = (".svg", ".png", ".pdf")


def write_heat_map(path: Path, ranking: Ranking) -> None:
    """A panel for each measure's excess over chance and for the mean recalls, the highest dark.

    Raises `ConfigError` for a name that ends otherwise than in one of `FORMS`.
    """
    check_name(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = list(dict.fromkeys(p.a for p in ranking.pairings))
    columns = list(dict.fromkeys(p.b for p in ranking.pairings))
    panels: dict[str, Callable[[Pairing], float]] = {"linear CCA, %": lambda p: 100 * p.score}
    if ranking.recipe is not None:
        panels[f"{ranking.recipe}, %"] = lambda p: 100 * p.reached
    for name in ranking.pairings[0].measures:
        panels[name] = lambda p, name=name: p.measures[name]["excess"]
    wide, high = 1.5 + 0.6 * len(columns), 1.2 + 0.35 * len(rows)
    figure = Figure(figsize=(len(panels) * wide, high))
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, value) in zip(every, panels.items(), strict=True):
        found = {(p.a, p.b): value(p) for p in ranking.pairings}
        table = [[found[a, b] for b in columns] for a in rows]
        low, high_value = min(map(min, table)), max(map(max, table))
        axes.imshow(table, cmap="Blues", aspect="auto")
        for i, line in enumerate(table):
            for j, number in enumerate(line):
                dark = high_value > low and (number - low) / (high_value - low) > 0.6
                text = f"{number:.1f}" if title.endswith("%") else f"{number:.2f}"
                axes.text(
                    j, i, text, ha="center", va="center", size=7, color="white" if dark else "black"
                )
        axes.set_title(title, fontsize=9)
        axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(len(rows)), rows, fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    undated = {"CreationDate": None} if path.suffix.lower() == ".pdf" else {"Date": None}
    with rc_context({"svg.hashsalt": "fusemix"}):  # the same ranking, the same file
        figure.savefig(path, bbox_inches="tight", metadata=undated)


def check_name(path: Path) -> None:
    """Raise `ConfigError` for a picture that can't be written."""
    if path.suffix.lower() not in FORMS:
        raise ConfigError(f"{path} is not a picture.", f"Its name ends in {', '.join(FORMS)}.")
