"""`align` from Python: classes, objects, three modalities with gaps, stopping and resuming."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pairs import write_world
from toys import ToyImage, ToySound, ToyText

from fusemix_core import FusedModel, align
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.flow import align as flow
from fusemix_core.flow.align import default_out
from fusemix_core.objectives.infonce import InfoNCE

SMALL = ["training.epochs=3", "adapter.blocks=1", "dim=8"]
PAPER = {"recipe": "fusemix-paper", "set": SMALL, "device": "cpu"}


def test_classes_and_objects_are_encoders(tmp_path):
    data = write_world(tmp_path / "w")
    loaded = ToyText.load(ToyText.spec, torch.device("cpu"), torch.float32)
    done = align({"image": ToyImage, "text": loaded}, data, out=tmp_path / "r", **PAPER)
    assert done.model.modalities == ("image", "text")
    assert set(done.results) >= {"test", "validation", "pairs", "scorer"}
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
        {"image": ToyImage, "text": ToyText}, data, out=tmp_path / "r", recipe="fusemix-paper",
        set=[*SMALL, "scorer=csls", "scorer.neighbours=3"], device="cpu",
    )  # fmt: skip
    assert done.results["scorer"] == {"name": "csls", "options": {"neighbours": 3}}
    assert "retrieval_cosine" in done.results["test"]


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


CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts without
sys.path.insert(0, {tests!r})
import torch; torch.set_num_threads(1)
sys.argv = ["fusemix", "align", "--a", {a!r}, "--b", {b!r}, "--data", {data!r}, "--out", {out!r},
            "--recipe", "fusemix-paper", "--set", "training.epochs={epochs}", "--set",
            "adapter.blocks=2", "--set", "training.batch_size=8", "--device", "cpu", *{more!r}]
from fusemix_core.cli import main
main()
"""


def start(tmp_path, data, out, *more, epochs=150):
    toys = Path(__file__).parents[1] / "toys.py"
    code = CHILD.format(
        tests=str(toys.parent), a=f"{toys}:ToyImage", b=f"{toys}:ToyText", data=str(data),
        out=str(tmp_path / out), epochs=epochs, more=list(more),
    )  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def wait_for_steps(folder, steps, process):
    """Until metrics.jsonl tells of so many lines."""
    log = folder / "metrics.jsonl"
    began = time.monotonic()
    while not log.exists() or log.read_text().count("\n") < steps:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() - began < 120
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a run that was never stopped, and the data."""
    folder = tmp_path_factory.mktemp("undisturbed")
    data = write_world(folder / "w")
    whole = start(folder, data, "whole")
    assert whole.wait(180) == 0, whole.stderr.read()
    return folder / "whole", data


@pytest.mark.parametrize(
    ("sign", "code"),
    [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
)
def test_stopped_and_resumed_is_never_stopped(tmp_path, undisturbed, sign, code):
    whole, data = undisturbed
    stopped = start(tmp_path, data, "stopped")
    wait_for_steps(tmp_path / "stopped", 200, stopped)
    os.kill(stopped.pid, sign)
    assert stopped.wait(60) == code
    assert not (tmp_path / "stopped/model").exists()
    resumed = start(tmp_path, data, "stopped", "--resume")
    assert resumed.wait(180) == 0, resumed.stderr.read()
    for file in ("model/model.safetensors", "model/config.json"):
        a, b = whole / file, tmp_path / "stopped" / file
        if file.endswith("json"):
            assert a.read_text() == b.read_text()
        else:
            assert a.read_bytes() == b.read_bytes()
    steps = [
        line.split('"step": ')[1].split(",")[0]
        for line in (tmp_path / "stopped/metrics.jsonl").read_text().splitlines()
        if '"train"' in line
    ]
    assert steps == [str(i + 1) for i in range(len(steps))]


def test_two_runs_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "now")
    first = default_out()
    first.mkdir(parents=True)
    second = default_out()
    second.mkdir()
    assert len({first, second, default_out()}) == 3


@pytest.mark.parametrize("takes", [False, True])
def test_rows_of_no_trust_are_for_objectives_that_take_trust(takes, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def fit(recipe, train, validation, context):
        given.extend([train, validation])
        raise Stop

    given = []
    monkeypatch.setattr(flow, "fit", fit)
    monkeypatch.setattr(InfoNCE, "takes_trust", takes)
    data = write_world(tmp_path / "w")
    header, *rows = data.read_text().splitlines()
    rows = [f"{row},{['', 0, 0.5][i % 3]}" for i, row in enumerate(rows)]
    data.write_text("\n".join([f"{header},trust", *rows]))
    with pytest.raises(Stop):
        align({"image": ToyImage, "text": ToyText}, data, out=tmp_path / "r", **PAPER)
    train, validation = given
    assert set(train.trust.tolist()) == ({0.0, 0.5, 1.0} if takes else {0.5, 1.0})
    assert set(validation.trust.tolist()) == {0.5, 1.0}
