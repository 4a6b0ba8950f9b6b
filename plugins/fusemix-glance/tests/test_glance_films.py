"""Films to a model that looks at few windows of them, and what it reports."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from fusemix_glance.command import glance
from fusemix_glance.films import Film, read_film, square, window, windows, write_film
from fusemix_glance.fitting import FIRST, LOOK, SOUND, cascade_curve
from fusemix_glance.job import GlanceConfig, fit_films, predict_films
from fusemix_glance.sample import write_sample
from PIL import Image
from toys import ToyImage, ToySound, ToyText
from typer.testing import CliRunner

import fusemix_core
from fusemix_core.config import DataConfig
from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.tasks.classify import Classify

ENCODERS = {
    FIRST: ToyImage(ToyImage.spec),
    LOOK: ToyImage(ToyImage.spec),
    SOUND: ToySound(ToySound.spec),
}


def data(table, **more):
    return DataConfig(source=(str(table),), **more)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("glance") / "films", films=18, seconds=4)


TOYS = Path(toys.__file__)
NAMES = {FIRST: f"{TOYS}:ToyImage", LOOK: f"{TOYS}:ToyImage", SOUND: f"{TOYS}:ToySound"}


def run(*words):
    return CliRunner().invoke(glance, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(table):
    """The model of `fusemix glance fit`."""
    out = table.parent.parent / "model"
    options = {
        "--data": table, "--out": out, "--target": "shape", "--split-column": "split",
        "--moments": 4, "--most": 3, "--first": NAMES[FIRST], "--look": NAMES[LOOK],
        "--sound": NAMES[SOUND], "--device": "cpu",
    }  # fmt: skip
    found = run("fit", *(word for option in options.items() for word in option))
    assert found.exit_code == 0 and "looks" in found.output, found.output
    return out


@pytest.fixture(scope="module")
def model(folder):
    return fusemix_core.load(folder, encoders=NAMES, device="cpu")


def test_windows_cover_the_square_in_the_middle():
    frame = Image.new("RGB", (8, 8))
    frame.paste((255, 255, 255), (4, 0, 8, 4))
    assert [np.asarray(one).mean() for one in windows(frame, 2)] == [0, 255, 0, 0]
    assert window(frame, 0, 1).size == (8, 8)
    assert square(Image.new("RGB", (9, 4))).size == (4, 4)


def test_a_film_is_read_as_moments_with_their_sounds(tmp_path):
    frames = [np.full((32, 32, 3), 60 * i, np.uint8) for i in range(4)]
    sounds = [np.full(8_000, 0.1 * (i % 2), np.float32) for i in range(4)]
    path = write_film(tmp_path / "film.mp4", frames, sounds, 8_000)
    film = read_film(path, 4, 8_000)
    assert [round(np.asarray(frame).mean() / 60) for frame in film.frames] == [0, 1, 2, 3]
    loud = [np.square(sound.samples[500:-500]).mean() for sound in film.sounds]
    assert max(loud[0], loud[2]) < 0.2 * min(loud[1], loud[3])
    assert [len(sound.samples) for sound in film.sounds] == [8_000] * 4
    assert read_film(path, 2, None).sounds is None


@pytest.mark.slow
def test_a_saved_model_looks_at_the_same_windows(model, table, tmp_path):
    model.save_pretrained(tmp_path / "model")
    again = fusemix_core.load(tmp_path / "model", encoders=NAMES, device="cpu")
    film = table.parent / "000.mp4"
    found, wanted = (one.watch(film, looks=2) for one in (again, model))
    assert found.times == wanted.times and found.regions == wanted.regions
    torch.testing.assert_close(found.scores, wanted.scores)
    assert len(found.times) == 2 and set(found.seconds) == {FIRST, SOUND, LOOK}


@pytest.mark.slow
def test_the_table_says_what_was_looked_at(model, table):
    found = predict_films(model, data(table, validation_fraction=0.0, test_fraction=0.0), looks=2)
    assert len(found) == 18 and set(found.columns["looks"]) == {2}
    assert found.notices["glance"]["looks"] == 36 and found.notices["glance"]["moments"] == 72
    assert all(len(cell.split()) == 2 for cell in found.columns["looked_at"])


def test_a_threshold_ends_the_looks(model, table):
    film = table.parent / "000.mp4"
    assert model.watch(film, looks=3, threshold=0.01).times == []
    assert len(model.watch(film, looks=3, threshold=1.0).times) == 3
    assert model.watch(film, looks=0).times == []


def test_a_film_without_sound_is_seen(model):
    film = Film([Image.new("RGB", (8, 8), (9 * i, 0, 0)) for i in range(4)], None, [0, 1, 2, 3])
    found = model.watch(film, looks=2)
    assert found.scores.isfinite().all() and len(found.times) == 2 and SOUND not in found.seconds


def test_the_encoder_is_the_expensive_one_for_few_windows_only(model, table):
    found = model.metrics["looks"]
    assert [looks for looks, _ in found] == [0, 1, 2, 3]
    thresholds, saved, _ = zip(*model.metrics["cascade"], strict=True)
    assert list(thresholds) == sorted(thresholds) and list(saved) == sorted(saved, reverse=True)


def test_the_curve_of_a_cascade_by_hand():
    task = Classify.learn({"target": Fact("class", np.array([0, 1]), ("a", "b"))})
    sure, unsure = torch.tensor([[9.0, -9.0]]), torch.tensor([[0.0, 0.1]])
    scores = [torch.cat([sure, unsure]), torch.cat([-sure, unsure]), torch.cat([-sure, -sure])]
    curve = cascade_curve(task, scores, torch.tensor([0, 1]))
    assert curve[-1] == [0.99, 0.5, 1.0]  # one film needs no look, the other both


@pytest.mark.parametrize(
    ("options", "message"),
    [({"most": 40}, "can't be looked at"), ({"moments": 0}, "moments is 0")],
)
def test_options_that_can_not_be(options, message):
    with pytest.raises(ConfigError, match=message):
        GlanceConfig(**options)


def test_what_can_not_be_fitted_is_explained(table, model):
    with pytest.raises(ConfigError, match="doesn't give a pooled latent of image"):
        fit_films(
            data(table, facts={"target": "shape:class"}),
            GlanceConfig(first=ToyText(ToyText.spec), sound="", moments=4, most=2),
        )
    with pytest.raises(DataError, match="validation split has 0"):
        fit_films(
            data(table, facts={"target": "shape:class"}, validation_fraction=0.0),
            GlanceConfig(
                first=ENCODERS[FIRST],
                look=ENCODERS[LOOK],
                sound="",
                moments=4,
                most=2,
            ),  # fmt: skip
        )
    with pytest.raises(ConfigError, match="threshold is 2"):
        model.watch(table.parent / "000.mp4", threshold=2)


def test_the_command_writes_a_table(folder, table, tmp_path):
    encoders = [word for m, name in NAMES.items() for word in ("-e", f"{m}={name}")]
    out = tmp_path / "found.csv"
    told = run("predict", folder, "--data", table, "--looks", 1, "--out", out, *encoders)
    assert told.exit_code == 0 and "18 looks at 72 moments" in told.output, told.output
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18 and {row["looks"] for row in rows} == {"1"}
