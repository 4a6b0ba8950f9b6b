"""`fusemix generate`: from an item to files that say what they are."""

import json
from pathlib import Path

import numpy as np
import pytest
from field import Field
from pairs import write_world
from PIL import Image
from toys import ToyImage, ToySound, ToyText
from typer.testing import CliRunner

from fusemix_core import align
from fusemix_core.cli.app import app
from fusemix_core.cli.generate import joined
from fusemix_core.generation.files import slug
from fusemix_core.registry import registry


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = write_world(folder / "w", count=60, sounds=True)
    encoders = {"image": ToyImage, "text": ToyText, "audio": ToySound}
    quick = {"recipe": "ridge", "device": "cpu", "baselines": []}
    align(encoders, data, fixed="text", out=folder / "r", **quick)
    align(encoders, data, out=folder / "free", **quick)
    return folder


@pytest.fixture
def command(tmp_path, run):
    """Runs `fusemix generate … --with field --out TMP/g`; gives what is printed, or JSON."""

    def call(*args, code=0, to="g"):
        model = [] if "--no-model" in args else [str(run / "r")]
        rest = [str(a) for a in args if a != "--no-model"]
        line = ["generate", *model, *rest, "--with", "field", "--out", str(tmp_path / to)]
        done = CliRunner().invoke(app, line)
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if "--json" in args else done.output

    return call


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ("--from audio bark.wav --with x", "--from audio=bark.wav --with x"),
        ("--from bark.wav --with x", "--from =bark.wav --with x"),
        ("--from audio=bark.wav m", "--from audio=bark.wav m"),
        (
            "m --from text fish --not image:front a.png",
            "m --from text=fish --not image:front=a.png",
        ),
        ("--from fish", "--from =fish"),
        ("--from fish --json", "--from =fish --json"),
        ("--from ./a=b.png x", "--from =./a=b.png x"),
        ("--from", "--from"),
    ],
)
def test_a_modality_and_an_item_are_one_value(given, becomes):
    assert joined(given.split()) == becomes.split()


def test_a_sound_becomes_images_named_for_it_and_their_seeds(command, run, tmp_path):
    found = command("--from", "audio", run / "w/4.wav", "-n", 2, "--seed", 5, "--json")
    assert [Path(one["file"]).name for one in found["items"]] == ["4-5.png", "4-6.png"]
    again = command("--from", "audio", run / "w/4.wav", "--seed", 6, "--json", to="h")
    pixels = [
        np.asarray(Image.open(f)) for f in (tmp_path / "g/4-6.png", again["items"][0]["file"])
    ]
    assert np.array_equal(*pixels)
    assert json.loads((tmp_path / "g/generated.json").read_text()) == found


def test_a_file_says_that_it_was_generated_by_what_and_from_what(command, run, tmp_path):
    sound = run / "w/4.wav"
    command("--from", "audio", sound, "--from", "text", "a red car", "--weights", "0.7,0.3")
    image = Image.open(tmp_path / "g/4+a-red-car-0.png")
    image.load()
    said = image.text
    assert said["fusemix generator"] == "field" and said["fusemix seed"] == "0"
    assert said["Software"].startswith("fusemix ") and "fusemix fusemix" not in said
    assert json.loads(said["fusemix from"]) == [
        {"modality": "audio", "item": "4.wav"},
        {"modality": "text", "item": "a red car"},
    ]
    assert json.loads(said["fusemix options"]) == {"guidance": 1.0, "noise": 0.05, "size": 8}
    assert "trainedAlgorithmicMedia" in said["XML:com.adobe.xmp"]
    assert str(run) not in "".join(said.values())


def test_a_file_in_the_working_folder_is_named_without_its_suffix(
    command, run, tmp_path, monkeypatch
):
    monkeypatch.chdir(run / "w")
    command("--from", "4.wav", "--seed", 9)
    assert (tmp_path / "g/4-9.png").exists()


def test_text_needs_no_model_and_no_modality(command, tmp_path):
    command("--no-model", "--from", "a red fish")
    assert (tmp_path / "g/a-red-fish-0.png").exists()


def test_options_reach_the_generator(command, tmp_path):
    command("--from", "text", "fish", "--size", 5, "--guidance", 2, "--set", "noise=0.0")
    image = pixels(tmp_path / "g/fish-0.png")
    assert image.shape == (5, 5, 3) and len(np.unique(image.reshape(-1, 3), axis=0)) == 1


def test_a_strip_goes_from_one_item_to_the_other_with_the_same_noise(command, run, tmp_path):
    found = command(
        "--from", "text", "fish", "--from", "text", "bird", "--strip", 5, "-n", 2, "--json"
    )  # fmt: skip
    assert [one["at"] for one in found["items"]] == [0, 0.25, 0.5, 0.75, 1] * 2
    ends = command("--from", "text", "bird", "--json", to="h")
    last, alone = (
        np.asarray(Image.open(f), int)
        for f in (found["items"][4]["file"], ends["items"][0]["file"])
    )
    assert np.abs(last - alone).max() <= 1
    page = (tmp_path / "g/index.html").read_text()
    assert page.count("<img") == 10 and "Seed 1" in page


def test_reranking_keeps_those_that_the_model_finds_to_fit_best(command):
    every = command("--from", "text", "a red car", "-n", 4, "--rerank", 1, "--json")
    best = command("--from", "text", "a red car", "-n", 2, "--rerank", 2, "--json", to="h")
    seeds, scores = zip(*[(one["seed"], one["score"]) for one in best["items"]], strict=True)
    assert len(every["items"]) == 4 and set(seeds) <= {0, 1, 2, 3}
    assert list(scores) == sorted(scores, reverse=True)


def test_a_dry_run_loads_no_generator_and_writes_nothing(command, tmp_path):
    before = Field.loads
    found = command("--from", "text", "fish", "--dry-run", "--json")
    assert found["space"] == "toy-text" and found["from"] == [{"modality": "text", "item": "fish"}]
    assert Field.loads == before and not (tmp_path / "g").exists()
    assert "text: fish" in command("--from", "text", "fish", "--dry-run")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "nothing to generate from"),
        (("--from", "smell", "rose"), "no modality 'smell'"),
        (("--from", "text", "fish", "--steps", "3"), "steps"),
        (("--from", "text", "fish", "--set", "noise=much"), "noise"),
        (("--from", "text", "fish", "--weights", "1,2"), "2 weights for 1"),
        (("--from", "text", "fish", "--weights", "1,x"), "not numbers"),
        (("--from", "text", "fish", "--strip", "4"), "Give --from twice"),
        (("--from", "text", "fish", "-n", "2000"), "1000"),
        (("--from", "text", "fish", "--correct", "magic"), "magic"),
        (("--from", "text", "fish", "--correct", "prior"), "--correction prior"),
        (("--from", "audio", "no.wav"), "no.wav"),
    ],
)
def test_what_can_not_be_done_is_refused_with_what_to_do(command, args, says):
    printed = command(*args, code=2)
    assert says in printed and "Traceback" not in printed


def test_a_model_without_a_fixed_side_is_refused_with_the_line_to_type(run):
    line = [
        "generate",
        str(run / "free"),
        "--from",
        "audio",
        str(run / "w/4.wav"),
        "--with",
        "field",
    ]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 2
    wanted = "fusemix align -e image=toy-image -e audio=toy-sound -e text=toy-text --fixed text"
    assert wanted in done.output


def test_generators_are_listed_and_shown():
    listed = json.loads(CliRunner().invoke(app, ["generators", "list", "--json"]).stdout)
    [field] = [row for row in listed if row["name"] == "field"]
    assert field["space"] == "toy-text" and field["makes"] == "image"
    shown = json.loads(CliRunner().invoke(app, ["generators", "show", "field", "--json"]).stdout)
    assert shown["options"] == {"guidance": 1.0, "noise": 0.05}
    assert registry.generator("FIELD") == Field.spec


def test_names_of_files_are_short_and_safe():
    assert slug("A red fish!") == "a-red-fish"
    assert slug("../../etc/passwd") == "etc-passwd"
    assert slug("?!") == "item" and len(slug("word " * 100)) <= 40
