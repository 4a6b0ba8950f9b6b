"""The plugin in the real `llm` command, with a small model of colours, words and tones."""

from __future__ import annotations

import io
import json

import llm.plugins
import llm_fusemix
import numpy as np
import pytest
import soundfile
import torch
import toys
from click.testing import CliRunner
from example_runs import STARTER, needs
from llm.cli import cli
from PIL import Image

from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.fused import EncoderInfo, FusedModel
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import registry
from fusemix_core.scorers.cosine import CosineScorer

TOYS = {"image": toys.ToyImage, "text": toys.ToyText, "audio": toys.ToySound}
COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}


def spec_of(modality):
    """As a run by file has it."""
    return registry.encoder(f"{toys.__file__}:{TOYS[modality].__name__}")


@pytest.fixture(scope="module")
def plugin():
    llm.plugins.load_plugins()
    if not llm.plugins.pm.is_registered(llm_fusemix):
        llm.plugins.pm.register(llm_fusemix, "fusemix")


@pytest.fixture
def run(plugin, tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llm").mkdir()
    llm_fusemix.register_commands(cli)

    def call(*arguments):
        done = CliRunner().invoke(cli, [str(a) for a in arguments])
        assert done.exit_code == 0, done.output or done.exception
        return done.output

    return call


@pytest.fixture
def saved(tmp_path):
    """The folder of a model of three modalities, and the arguments that name its encoders."""
    torch.manual_seed(0)
    encoders = {m: TOYS[m](spec_of(m)) for m in TOYS}
    infos = {
        m: EncoderInfo.of(
            e.spec,
            modality=m,
            dim=e.spec.dim,
            fingerprint=fingerprint(e.spec, "float32", e.weights_digest),
            view="pooled",
        )
        for m, e in encoders.items()
    }
    adapters = {m: LinearAdapter(e.spec.dim, 8) for m, e in encoders.items()}
    model = FusedModel(adapters, infos, CosineScorer(), sources=encoders, device="cpu")
    model.save_pretrained(tmp_path / "runs" / "first" / "model")
    named = [f"--encoder={m}={toys.__file__}:{toy.__name__}" for m, toy in TOYS.items()]
    return tmp_path / "runs" / "first", named, model


def photos(folder):
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (16, 16), colour).save(folder / f"{name}.jpg")
    return folder


def lines(printed):
    return [json.loads(line) for line in printed.splitlines()]


def test_a_registered_model_embeds_photos_and_finds_them(run, saved, tmp_path):
    folder, named, model = saved
    assert run("fusemix", "register", folder, *named) == "fusemix/first\n"
    where = photos(tmp_path / "photos")
    run("embed-multi", "photos", "--files", where, "*.jpg", "--binary", "-m", "fusemix/first")
    found = lines(run("similar", "photos", "-c", "a green thing"))
    text = model.encode("text", ["a green thing"])
    files = sorted(where.glob("*.jpg"))
    wanted = (text @ model.encode("image", files).T)[0]
    order = [files[int(i)].name for i in wanted.argsort(descending=True)]
    assert [one["id"] for one in found] == order
    assert found[0]["score"] == pytest.approx(float(wanted.max()), abs=1e-5)
    same = lines(run("similar", "photos", "-i", where / "blue.jpg", "--binary", "-n", 1))
    assert same[0]["id"] == "blue.jpg" and same[0]["score"] == pytest.approx(1, abs=1e-5)


def test_bytes_go_to_the_modality_that_they_are_of(run, saved, tmp_path):
    _, _, model = saved
    one = llm_fusemix.Fused("x", "")
    one._model = model
    sound, image = io.BytesIO(), io.BytesIO()
    soundfile.write(sound, np.sin(np.arange(4000) / 9).astype("float32"), 8000, format="WAV")
    Image.new("RGB", (8, 8), (1, 99, 3)).save(image, "WEBP")
    items = ["a map", sound.getvalue(), image.getvalue(), "the sea"]
    kinds = [llm_fusemix.modality_of(model, item) for item in items]
    assert kinds == ["text", "audio", "image", "text"]
    rows = torch.tensor(list(one.embed_multi(items)))
    for row, item, kind in zip(rows, items, kinds, strict=True):
        assert torch.allclose(row, model.encode(kind, [item])[0], atol=1e-6)


def test_an_image_that_cant_be_read_is_an_error_of_llm(saved):
    one = llm_fusemix.Fused("x", "")
    one._model = saved[2]
    with pytest.raises(llm.ModelError, match="image"):
        one.embed(b"\x89PNG\r\n broken")


def test_runs_of_this_folder_are_found_and_registered_ones_win(run, saved, tmp_path):
    listed = run("embed-models")
    assert "fusemix/runs/first (aliases: fusemix/first)" in listed
    run("fusemix", "register", "someone/model", "--name", "runs/first")
    assert "fusemix/runs/first  someone/model" in run("fusemix", "models")
    done = CliRunner().invoke(cli, ["fusemix", "register", "nowhere"])
    assert done.exit_code == 1 and "neither a folder nor a hub id" in done.output


@needs(*STARTER)
def test_the_model_of_the_starter_finds_a_photo_by_words(run, tmp_path):
    where = photos(tmp_path / "photos")
    model = "fusemix/starter:figures"
    run("embed-multi", "photos", "--files", where, "*.jpg", "--binary", "-m", model)
    found = lines(run("similar", "photos", "-c", "a map of Africa"))
    assert {one["id"] for one in found} == {f"{name}.jpg" for name in COLOURS}
