"""A run whose model confuses items, and a re-ranker for it."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from words import TRAINING, Left, Right, table  # noqa: E402

ENCODERS = {"left": Left, "right": Right}


@pytest.fixture(scope="session")
def done(tmp_path_factory):
    """`folder`, `data`, `first` (align), `found` (rerank) and its `stages`."""
    from fusemix_core import align, rerank
    from fusemix_core.runs.reporter import Reporter

    folder = tmp_path_factory.mktemp("rerank")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEMIX_HOME", str(folder / "home"))
        patch.setattr("fusemix_core.reports.figures._svg", lambda *_, **__: "<svg></svg>")
        data = {"source": write(folder / "pairs.csv")}
        first = align(ENCODERS, data, recipe="cca", out=folder / "run")
        how = {"network": "interaction", "settings": TRAINING, "out": folder / "rerank"}
        reporter, stages = Reporter(), []
        patch.setattr(reporter, "stage", stages.append)
        found = rerank(folder / "run", **how, reporter=reporter)
    return SimpleNamespace(folder=folder, data=data, first=first, found=found, stages=stages)


def write(path):
    import csv

    columns = table()
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return str(path)
