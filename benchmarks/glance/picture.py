"""The curve of the page "Audio-visual glance"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PICTURE = Path(__file__).parents[2] / "docs" / "methods" / "glance.svg"
COLOURS = {
    "audio-visual saliency": "#d1495b",
    "visual saliency": "#00798c",
    "uniform": "#66757f",
    "random": "#b8a038",
}


def draw(found: dict[str, Any]) -> Path:
    """Accuracy against the number of looks, with 95% intervals."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "glance"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for name, colour in COLOURS.items():
        curve = {int(k): v for k, v in found["ways"][name]["accuracy"].items() if int(k)}
        x, middle = list(curve), [100 * v[0] for v in curve.values()]
        low, high = ([100 * v[i] for v in curve.values()] for i in (1, 2))
        axes.plot(x, middle, marker="o", color=colour, label=name)
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    best = 100 * max(v[0] for v in found["ways"]["known moments and windows"]["accuracy"].values())
    axes.axhline(best, color="#333333", linestyle=":", label="known moments and windows, at best")
    axes.set_xscale("log", base=2)
    axes.set_xticks(x, [str(one) for one in x])
    axes.set_xlabel("looks per clip, of 30 moments")
    axes.set_ylabel("accuracy on test clips, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(PICTURE, metadata={"Date": None})
    plt.close(figure)
    return PICTURE
