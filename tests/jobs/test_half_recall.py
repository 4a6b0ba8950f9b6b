"""Trained in half precision, a model finds as much as one trained in float32.

Real encoders and the two samples that come with this repository: figures with their descriptions
(the starter's), and molecules with theirs (the example's).
"""

from pathlib import Path
from statistics import mean, stdev

import fusemix_starter
import pytest

from fusemix_core import align

ROOT = Path(__file__).parents[2]
SETS = {
    "figures": (
        {"image": "efficientnet-lite0", "text": "minilm"},
        {"source": [str(fusemix_starter.sample_path())], "allow_outside": True},
    ),
    "molecules": (
        {"molecule": "chemnet", "text": "minilm"},
        {
            "source": [str(ROOT / "examples/molecules.tsv")],
            "validation_fraction": 0.2,
            "test_fraction": 0.3,
        },
    ),
}
SETTINGS = ["training.epochs=30", "adapter.blocks=1", "adapter.expansion=2.0", "dim=256"]
SEEDS = 4


def recalls(name, precision, folder):
    """Mean recall on the test split, in percent, of each seed."""
    encoders, data = SETS[name]
    overrides = [*SETTINGS, f"training.precision={precision}"]
    found = []
    for seed in range(SEEDS):
        run = {"out": folder / f"{precision}-{seed}", "seed": seed, "device": "cpu"}
        done = align(encoders, data, recipe="fusemix", overrides=overrides, **run)
        assert done.results["precision"] == precision
        found.append(done.results["test"]["retrieval"]["mean_recall"])
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", SETS)
def test_recall_in_half_is_within_the_spread_of_seeds(name, tmp_path):
    exact, half = (recalls(name, precision, tmp_path) for precision in ("float32", "half"))
    print(name, [round(x, 2) for x in exact], [round(x, 2) for x in half])
    assert abs(mean(half) - mean(exact)) <= stdev(exact)
