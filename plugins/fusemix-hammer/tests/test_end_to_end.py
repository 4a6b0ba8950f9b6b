"""From real pairs to fakes, a predictor of them, its report and its predictions."""

import csv

import numpy as np
import pytest
import torch
from fusemix_hammer.building import Build, build
from PIL import Image
from toys import TokenText, ToyImage, ToyText

from fusemix_core import fuse, load
from fusemix_core.config import DataConfig
from fusemix_core.jobs.predict import predict, predicted_data
from fusemix_core.runs.fusing import build_fuse_config

WORDS = ["river", "engine", "cloud", "temple", "bridge", "lantern", "walrus", "compass"]
SMALL = {"width": 16, "heads": 2, "own": 0, "depth": 1, "training": {"epochs": 2}}


class Cells(ToyImage):
    """The colours of 4 x 4 parts of an image."""

    spec = ToyImage.spec.__class__(
        name="cells", modality="image", target="cells:Cells", dim=3, views=("pooled", "grid")
    )
    mix = torch.eye(3)

    def collate(self, items):
        small = [np.asarray(item.resize((4, 4)), np.float32) / 255 for item in items]
        return torch.tensor(np.array(small))

    def encode(self, batch, view="pooled"):
        return batch if view == "grid" else batch.mean(dim=(1, 2))


class Words(TokenText):
    """One latent for each word."""

    def collate(self, items):
        return [ToyText.collate(self, item.split()) for item in items]


@pytest.fixture(scope="module")
def fakes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    draw = np.random.default_rng(0)
    lines = [("image", "text", "split")]
    for k in range(60):
        values = draw.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        Image.fromarray(values).resize((48, 48), Image.Resampling.BICUBIC).save(folder / f"{k}.png")
        split = ("train", "train", "train", "validation", "test")[k % 5]
        lines.append((f"{k}.png", " ".join(draw.choice(WORDS, 5, replace=False)), split))
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    data = DataConfig((str(folder / "pairs.csv"),), split_column="split")
    build(data, folder / "fakes", Build(size=48))
    return folder / "fakes" / "pairs.csv"


@pytest.fixture(scope="module")
def done(fakes, tmp_path_factory):
    settings = {"name": "hammer", "options": SMALL}
    data = {"source": (str(fakes),), "split_column": "split", "group_by": "group"}
    out = tmp_path_factory.mktemp("run") / "run"
    encoders = {"image": Cells, "text": Words}
    return fuse(encoders, data, task="manipulation", fuser=settings, out=out)


@pytest.mark.slow
def test_a_run_measures_detection_types_boxes_and_words(done):
    found = done.results["candidates"]["hammer"]["metrics"]
    wanted = {"auc", "eer", "accuracy", "map", "cf1", "of1", "iou", "iou_boxes", "f1", "f1_tagged"}
    assert wanted <= set(found) and "auc_text_swap" in found
    assert set(done.results["candidates"]) == {
        "no modality", "image", "text", "mean of modalities", "stack", "hammer"
    }  # fmt: skip
    assert done.results["task"]["metric"] == "auc"


@pytest.mark.slow
def test_the_report_shows_what_was_found(done):
    report = done.folder.report.read_text()
    assert "Found" in report and report.count("data:image/png") >= 3
    assert "Orange: found" in report


@pytest.mark.slow
def test_predictions_of_a_table_have_boxes_and_words(done, fakes, tmp_path):
    own = {"image": Cells(Cells.spec), "text": Words(Words.spec)}
    predictor = load(done.folder.model, encoders=own)
    config = predicted_data({"source": [str(fakes)]}, {})
    found = predict(predictor, config)
    found.write(tmp_path / "predictions.csv")
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    with fakes.open() as file:
        given = list(csv.DictReader(file))
    assert len(rows) == len(given)
    for row, source in zip(rows, given, strict=True):
        assert row["prediction"] == ("fake" if float(row["probability_fake"]) > 0.5 else "real")
        words = source["text"].split()
        assert all(word in words for word in row["words"].split("; ") if word)
        assert not row["box"] or len(row["box"].split(",")) == 4


def test_the_task_names_its_fuser_its_views_and_its_columns():
    values = {
        "encoders": {"image": "efficientnet-lite0", "text": "minilm"},
        "task": "manipulation",
        "data": {"source": ("x.csv",)},
    }
    config, _ = build_fuse_config(values)
    assert config.fuser.name == "hammer"
    assert config.views == {"image": "grid", "text": "tokens-words"}
