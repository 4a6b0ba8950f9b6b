"""Smaller embeddings: what is lost by fewer dimensions and fewer bits. In the long form those of
the sample's figures."""

import csv
from pathlib import Path

import fusemix_starter
import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from typer.testing import CliRunner

from fusemix_core import align
from fusemix_core.cli.app import app
from fusemix_core.config import DataConfig
from fusemix_core.evaluation.retrieval import retrieval
from fusemix_core.runs.models import embed_for, encode_for
from fusemix_core.runs.reading import read_usable
from fusemix_core.runs.reporter import Reporter

ENCODERS = {"image": "efficientnet-lite0", "text": "minilm"}
SOURCE = str(fusemix_starter.sample_path())
TRAINED = 2
"""One of so many rows outside the test split is used. Fewer have no 384 dimensions."""
DIM, ROWS = 384, 900


@pytest.fixture(autouse=True)
def own_home(shared_home, monkeypatch):
    """The latents of the run are there: to encode the items again takes half a minute."""
    monkeypatch.setenv("FUSEMIX_HOME", shared_home)


def drawn(folder):
    """Latents whose 384 directions, shared by both modalities, are of ever smaller variance: the
    encoders and data of a run."""
    draw = np.random.default_rng(0)
    spread = np.arange(1, DIM + 1) ** -0.85
    shared = draw.normal(size=(ROWS, DIM)) * spread
    encoders = {}
    for modality in ("image", "text"):
        turn, _ = np.linalg.qr(draw.normal(size=(DIM, DIM)))
        own = shared + 0.8 * spread * draw.normal(size=shared.shape)
        np.save(folder / f"{modality}.npy", (own @ turn).astype(np.float32))
        encoders[modality] = f"npy:{folder / modality}.npy"
    splits = [
        "test" if i % 3 == 0 else "validation" if i % 10 == 1 else "train" for i in range(ROWS)
    ]
    rows = [{"image": i, "text": i, "split": split} for i, split in enumerate(splits)]
    return encoders, rows


def of_sample(folder):
    """The sample's test split, and some of its other rows."""
    with open(SOURCE, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    test = [row for row in rows if row["split"] == "test"]
    others = [row for row in rows if row["split"] != "test"]
    rows = others[::TRAINED] + test
    return ENCODERS, [r | {"image": str(Path(SOURCE).parent / r["image"])} for r in rows]


@pytest.fixture(
    scope="module", params=[drawn, pytest.param(of_sample, marks=pytest.mark.long)],
    ids=lambda made: made.__name__,
)  # fmt: skip
def run(request, tmp_path_factory):
    """A kernel CCA of latents drawn, in the long form of the sample's."""
    folder = tmp_path_factory.mktemp("compression")
    encoders, rows = request.param(folder)
    with open(folder / "pairs.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    options = {"dims": [64, 128], "dtypes": ["int8", "binary"]}
    further = [{"name": "compression", "options": options}]
    source = [str(folder / "pairs.csv")]
    data = {"source": source, "split_column": "split", "allow_outside": True}
    out = folder / "run"
    return align(encoders, data, recipe="kcca", out=out, evaluators=further, device="cpu")


def stored(run, dims, dtype):
    """What results.json has of a way to store the embeddings of the test split."""
    ways = run.results["test"]["compression"]["stored"]
    found = next(way for way in ways if (way["dims"], way["dtype"]) == (dims, dtype))
    return found | {"mean": (found["r1"] + found["r5"] + found["r10"]) / 3}


def test_128_dimensions_lose_less_than_two_points_and_int8_nothing(run):
    whole = stored(run, 384, "float32")["mean"]
    assert whole == pytest.approx(run.results["test"]["retrieval"]["mean_recall"], abs=0.5)
    assert stored(run, 128, "float32")["mean"] > whole - 2
    assert stored(run, 384, "int8")["mean"] > whole - 0.5
    assert stored(run, 384, "binary")["mean"] > whole - 15
    assert stored(run, 64, "int8")["bytes"] == 64 and stored(run, 384, "binary")["bytes"] == 48


def test_any_other_dimensions_lose_more_than_five_points(run):
    model = run.model
    source = str(run.folder.path.with_name("pairs.csv"))
    config = DataConfig((source,), split_column="split", allow_outside=True)
    dataset = read_usable(config, {m: i.takes for m, i in model.encoders.items()}, 0)
    split = embed_for(model, encode_for(model, dataset, Reporter(), 0.01).paired("test"))

    def recall(basis):
        rows = {m: normalize(own @ basis, dim=1) for m, own in split.embeddings.items()}
        return retrieval(rows, split.links, resamples=0)["mean_recall"]

    drawn = torch.randperm(model.dim, generator=torch.Generator().manual_seed(0))[:64]
    assert recall(torch.eye(model.dim)[:, drawn]) < recall(model.rotation[:, :64]) - 5


def test_the_table_is_in_the_report_and_of_fusemix_eval(run):
    assert "Smaller embeddings" in run.folder.report.read_text()
    command = ["eval", str(run.folder.path), "--dims", "32", "--dtype", "int8"]
    drawn = run.folder.path.parent.glob("*.npy")
    command += [word for path in drawn for word in ("-e", f"{path.stem}=npy:{path}")]
    shown = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    rows = [line.split()[:3] for line in shown.output.splitlines() if " int8 " in line]
    assert rows == [["384", "int8", "384"], ["32", "int8", "32"]]


def test_dims_that_are_no_numbers_are_refused():
    done = CliRunner().invoke(app, ["eval", "nowhere", "--data", SOURCE, "--dims", "many"])
    assert done.exit_code == 2 and "--dims 64,128" in done.output
