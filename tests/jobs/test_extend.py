"""`extend`: a modality joins a finished model, of which nothing moves."""

import csv
import json
import shutil

import pytest
import torch
from pairs import write_world
from safetensors.torch import load_file
from toys import GridImage, TokenMean, TokenText, ToyImage, ToySound, ToyText

from fusemix_core import FusedModel, align, extend
from fusemix_core.config import DataConfig
from fusemix_core.errors import ArtefactError, ConfigError, DataError
from fusemix_core.jobs import measured_data
from fusemix_core.jobs.evaluate import evaluate
from fusemix_core.jobs.search import Gallery
from fusemix_core.registry import registry
from fusemix_core.runs.models import load_model

OWN = {"image": ToyImage.spec, "text": ToyText.spec}
TRAINED = {
    "recipe": "fusemix",
    "overrides": ["training.epochs=3", "adapter.blocks=1", "training.batch_size=8"],
}


def columns(source, target, names):
    """A manifest with some columns of another, and the rows that have all of them."""
    with open(source, newline="") as file:
        rows = [{n: r[n] for n in names} for r in csv.DictReader(file)]
    kept = [r for r in rows if all(r.values())]
    with open(target, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(kept)
    return target


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder: the world `w`, its words and sounds `w/spoken.csv`, and `r`, the run of its words
    and pictures."""
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEMIX_HOME", str(folder / "home"))
        data = write_world(folder / "w", count=480, sounds=True)
        align(
            {"image": ToyImage, "text": ToyText}, data, overrides=["scorer=csls"], out=folder / "r",
            device="cpu",
        )  # fmt: skip
    columns(data, folder / "w/spoken.csv", ["text", "audio"])
    return folder


def loaded(base):
    return FusedModel.from_pretrained(base / "r/model", encoders=OWN, device="cpu")


def extended(base, out, data="spoken.csv", **how):
    return extend(loaded(base), {"audio": ToySound}, base / "w" / data, out=out, **how)


BY_GRADIENT = pytest.param(TRAINED, id="by gradient", marks=pytest.mark.long)
BY_RIDGE = pytest.param({"recipe": "ridge"}, id="ridge", marks=pytest.mark.long)


@pytest.mark.slow
@pytest.mark.parametrize("how", [pytest.param({}, id="closed form"), BY_GRADIENT])
def test_a_model_of_tokens_is_extended(base, tmp_path, how):
    registry.add_component("adapter", "token-mean", TokenMean)
    own = align(
        {"image": GridImage, "text": TokenText}, base / "w/pairs.csv", device="cpu",
        views={"image": "grid", "text": "tokens"}, out=tmp_path / "r", recipe="fusemix",
        overrides=["adapter=token-mean", "mixup=none", "dim=8", "training.epochs=4"],
    ).model  # fmt: skip
    done = extend(own, {"audio": ToySound}, base / "w/spoken.csv", out=tmp_path / "x", **how)
    assert done.model.adapters["text"] is own.adapters["text"]
    found = done.results["test"]["retrieval"]["directions"]
    assert set(found) == {"text->audio", "audio->text"}
    if not how:  # by chance it would be 31
        assert found["audio->text"]["r10"] > 45


@pytest.mark.parametrize("how", [{}, TRAINED, BY_RIDGE])
def test_nothing_of_the_model_moves(base, tmp_path, how):
    before = {p.name: p.read_bytes() for p in (base / "r/model").iterdir()}
    done = extended(base, tmp_path / "x", **how)
    assert {p.name: p.read_bytes() for p in (base / "r/model").iterdir()} == before
    old = load_file(base / "r/model/model.safetensors")
    new = load_file(tmp_path / "x/model/model.safetensors")
    seen = [name for name in old if name.startswith("seen.")]
    assert all(torch.equal(value, new[name]) for name, value in old.items() if name not in seen)
    assert all(set(old[name].tolist()) <= set(new[name].tolist()) for name in seen)
    model = FusedModel.from_pretrained(
        tmp_path / "x/model", encoders={**OWN, "audio": ToySound.spec}
    )
    assert model.modalities == ("image", "text", "audio")
    kept, pictures = loaded(base), [base / f"w/{i}.png" for i in range(4)]
    rows, words = model.encode("image", pictures), model.encode("text", ["a red car"])
    assert torch.equal(rows, kept.encode("image", pictures))
    scores = [m.similarity(words, rows, "text", "image") for m in (kept, model)]
    assert torch.equal(*scores)
    sound = [base / "w/1.wav"]
    assert torch.equal(model.encode("audio", sound), done.model.encode("audio", sound))


def test_only_what_is_new_is_measured_and_beats_chance(base, tmp_path):
    done = extended(base, tmp_path / "x")
    directions = done.results["test"]["retrieval"]["directions"]
    assert set(directions) == {"text->audio", "audio->text"}
    for name, found in directions.items():
        assert found["r5"] > 3 * 100 * 5 / found["gallery"], name
    assert done.results["scorer"]["name"] == "csls"
    card = (tmp_path / "x/model/README.md").read_text()
    assert "extended with audio" in card and "image" in card
    assert "audio" in (tmp_path / "x/report.html").read_text()


def test_directions_that_were_never_paired_are_measured_through_a_third(base, tmp_path):
    """Two files: words with pictures, and the same words with sounds."""
    world = base / "w/pairs.csv"
    seen = columns(world, base / "w/seen.csv", ["image", "text"])
    data = {"source": [str(base / "w/spoken.csv"), str(seen)]}
    done = extend(loaded(base), {"audio": ToySound}, data, out=tmp_path / "x")
    assert done.results["never_paired"] == ["image-audio"]
    directions = done.results["test"]["retrieval"]["directions"]
    assert "image->text" not in directions
    found = directions["audio->image"]
    assert found["r5"] > 2 * 100 * 5 / found["gallery"]
    with open(world, newline="") as file:
        partner = {r["audio"]: r["image"] for r in csv.DictReader(file)}
    items, split = done.encoded.dataset.items, done.encoded.dataset.splits["test"]
    heard = {items["audio"].describe(a) for a in done.encoded.dataset.links[split, 2] if a >= 0}
    assert found["queries"] == len(heard) == found["positives"]
    example = next(e for e in done.examples if (e.query, e.target) == ("audio", "image"))
    sound, picture = (
        items[m].describe(i).rsplit("/", 1)[-1]
        for m, i in (("audio", example.item), ("image", example.partners[0]))
    )
    assert partner[sound] == picture


def test_a_saved_extended_model_searches_evaluates_and_is_extended_by_name(base, tmp_path):
    extended(base, tmp_path / "x")
    encoders = {**OWN, "audio": ToySound.spec}
    model = load_model(tmp_path / "x", "cpu", encoders)
    what = measured_data.measured_data(tmp_path / "x", {}, None, None)
    found = evaluate(model, what.config, what.split, seed=what.seed)
    saved = json.loads((tmp_path / "x/results.json").read_text())["test"]["retrieval"]
    assert found["retrieval"]["mean_r1"] == pytest.approx(saved["mean_r1"])
    gallery = Gallery(model, "image", DataConfig(source=(str(base / "w/pairs.csv"),)))
    assert len(gallery.search(base / "w/1.wav", "audio", count=3)) == 3


@pytest.mark.slow
def test_stopped_training_is_resumed_to_the_same_model(base, tmp_path, monkeypatch):
    whole = extended(base, tmp_path / "a", **TRAINED)

    class Stop(Exception):
        pass

    def stop(*_, **__):
        raise Stop

    monkeypatch.setattr("fusemix_core.runs.measure.never_paired", stop)
    with pytest.raises(Stop):
        extended(base, tmp_path / "b", **TRAINED)
    monkeypatch.undo()
    steps = sorted(p.name for p in (tmp_path / "b/checkpoints").iterdir())
    assert steps
    resumed = extended(base, tmp_path / "b", resume=True, **TRAINED)
    assert resumed.results["test"] == whole.results["test"]
    files = [tmp_path / n / "model/model.safetensors" for n in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_encoders_given_by_name_are_those_of_the_fit(base, tmp_path):
    data, audio = base / "w/spoken.csv", {"audio": ToySound}
    with pytest.raises(ArtefactError, match="not the one this model was trained"):
        other = ToyText.load(ToyText.spec, torch.device("cpu"), torch.float32)
        other.mix = ToyText.mix + 1
        extend(base / "r", {**audio, "text": other}, data, out=tmp_path / "x")
    done = extend(base / "r", {**audio, "text": ToyText}, data, out=tmp_path / "y")
    assert done.model.modalities == ("image", "text", "audio")


@pytest.mark.parametrize(
    ("encoders", "data", "how", "error", "says"),
    [
        ({"text": ToyText}, "spoken.csv", {}, ConfigError, "has an encoder of text"),
        ({}, "spoken.csv", {}, ConfigError, "No encoder is given"),
        ({"audio": ToySound}, "spoken.csv", {"recipe": "csa"}, ConfigError, "moves every"),
        (
            {"audio": ToySound},
            "spoken.csv",
            {"fixed": ["audio"]},
            ConfigError,
            "fixed when it is extended",
        ),
        ({"audio": ToySound, "scene": GridImage}, "scene.csv", {}, DataError, "of the model's"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_encoded(
    base, tmp_path, encoders, data, how, error, says
):
    with open(base / "w/scene.csv", "w") as file:
        file.write("audio,scene\n1.wav,1.png\n2.wav,2.png\n")
    with pytest.raises(error, match=says):
        extend(loaded(base), encoders, base / "w" / data, out=tmp_path / "x", **how)
    assert not (tmp_path / "x").exists()


def test_a_new_modality_that_training_never_links_with_the_model_is_said_so(base, tmp_path):
    shutil.copytree(base / "w", tmp_path / "w")
    rows = ["text,audio,scene,split"]
    rows += [f",{i}.wav,{i}.png,train" for i in range(1, 60) if i % 3]
    rows += ["words,,1.png,train"]
    rows += [f"words {i},{i}.wav,,validation" for i in (61, 62, 64)]
    (tmp_path / "w/none.csv").write_text("\n".join(rows))
    with pytest.raises(DataError, match="No training pair links"):
        extend(
            loaded(base), {"audio": ToySound, "scene": ToyImage},
            {"source": str(tmp_path / "w/none.csv"), "split_column": "split"}, out=tmp_path / "x",
        )  # fmt: skip
