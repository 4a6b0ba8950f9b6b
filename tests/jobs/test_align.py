"""`align` from Python: classes, objects, three modalities with gaps."""

import re
import time

import pytest
import torch
from pairs import write_world
from toys import ToyImage, ToySound, ToyText

from fusemix_core import FusedModel, align
from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.runs.folder import default_out

SMALL = ["training.epochs=3", "adapter.blocks=1", "dim=8"]
ENCODERS = {"image": ToyImage, "text": ToyText}
PAPER = {"recipe": "fusemix", "overrides": SMALL, "device": "cpu"}


def test_classes_and_objects_are_encoders(tmp_path):
    data = write_world(tmp_path / "w")
    loaded = ToyText.load(ToyText.spec, torch.device("cpu"), torch.float32)
    done = align({"image": ToyImage, "text": loaded}, data, out=tmp_path / "r", **PAPER)
    assert done.model.modalities == ("image", "text")
    assert set(done.results) >= {"test", "validation", "pairs", "scorer"}
    assert done.results["precision"] == "float32"
    image = done.model.encode("image", [tmp_path / "w/0.png", tmp_path / "w/1.png"])
    text = done.model.encode("text", ["a red car"])
    assert done.model.similarity(text, image, "text", "image").shape == (1, 2)


def test_three_modalities_with_missing_entries(tmp_path):
    data = write_world(tmp_path / "w", sounds=True)
    done = align(
        {"image": ToyImage, "text": ToyText, "audio": ToySound}, data, out=tmp_path / "r", **PAPER
    )
    directions = done.results["test"]["retrieval"]["directions"]
    assert len(directions) == 6
    assert directions["audio->text"]["queries"] < directions["image->text"]["queries"]
    report = (tmp_path / "r/report.html").read_text()
    assert "audio" in report
    again = FusedModel.from_pretrained(
        tmp_path / "r/model", encoders={"image": ToyImage.spec, "audio": ToySound.spec}
    )
    sound = [tmp_path / "w/1.wav"]
    assert torch.equal(again.encode("audio", sound), done.model.encode("audio", sound))


def test_same_seed_same_model(tmp_path):
    data = write_world(tmp_path / "w")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        align({"image": ToyImage, "text": ToyText}, data, out=tmp_path / name, seed=seed, **PAPER)
    a, b, c = ((tmp_path / n / "model/model.safetensors").read_bytes() for n in "abc")
    assert a == b and a != c


def test_scorer_is_chosen_on_validation_and_saved(tmp_path):
    data = write_world(tmp_path / "w")
    done = align(
        {"image": ToyImage, "text": ToyText}, data, out=tmp_path / "r", recipe="fusemix",
        overrides=[*SMALL, "scorer=csls", "scorer.neighbours=3"], device="cpu",
    )  # fmt: skip
    assert done.results["scorer"] == {"name": "csls", "options": {"neighbours": 3}}
    found = done.results["test"]["retrieval"]
    assert found["scorer"] == "csls" and found["cosine"]["directions"].keys() == (
        found["directions"].keys()
    )


@pytest.mark.parametrize(
    ("encoders", "says"),
    [({"image": ToyImage}, "two encoders"), ({"image": ToyImage, "text": "nothing"}, "nothing")],
)
def test_config_errors(tmp_path, encoders, says):
    data = write_world(tmp_path / "w", count=20)
    with pytest.raises(ConfigError, match=says):
        align(encoders, data, out=tmp_path / "r", **PAPER)


def test_a_handful_of_pairs_is_refused_with_a_hint(tmp_path):
    data = write_world(tmp_path / "w", count=2)
    with pytest.raises(DataError, match="split"):
        align({"image": ToyImage, "text": ToyText}, data, out=tmp_path / "r", **PAPER)


def test_two_runs_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "now")
    first = default_out()
    first.mkdir(parents=True)
    second = default_out()
    second.mkdir()
    assert len({first, second, default_out()}) == 3


@pytest.mark.parametrize("objective", ["infonce", "hammer", "structure(hammer)"])
def test_rows_of_no_trust_are_for_objectives_that_use_trust(objective, tmp_path, monkeypatch):
    for name in set(re.findall(r"\w+", objective)) - {"infonce"}:
        pytest.importorskip(f"fusemix_{name}")

    class Stop(Exception):
        pass

    def fit(self, train, validation, recipe, context):
        given.extend([train, validation])
        raise Stop

    given, (outer, _, inner) = [], objective.rstrip(")").partition("(")
    sets = [f"objective={outer}", *([f"objective.objective={inner}"] if inner else [])]
    monkeypatch.setattr(GradientAligner, "fit", fit)
    data = write_world(tmp_path / "w")
    header, *rows = data.read_text().splitlines()
    rows = [f"{row},{['', 0, 0.5][i % 3]}" for i, row in enumerate(rows)]
    data.write_text("\n".join([f"{header},trust", *rows]))
    with pytest.raises(Stop):
        align(ENCODERS, data, out=tmp_path / "r", **{**PAPER, "overrides": [*SMALL, *sets]})
    train, validation = given
    uses = objective != "infonce"
    assert set(train.facts["trust"].values.tolist()) == ({0.0, 0.5, 1.0} if uses else {0.5, 1.0})
    assert set(validation.facts["trust"].values.tolist()) == {0.5, 1.0}


def test_numbers_that_the_device_has_not_are_refused_before_anything_is_made(tmp_path):
    data = write_world(tmp_path / "world", count=40)
    settings = ["training.precision=tf32"]
    with pytest.raises(ConfigError, match="precision is tf32"):
        align(
            ENCODERS, data, recipe="fusemix", overrides=settings, out=tmp_path / "r", device="cpu"
        )
    assert not (tmp_path / "r").exists()
