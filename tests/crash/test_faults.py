"""What goes wrong around a run ends with a message that helps, and loses nothing."""

import contextlib
import json
import os
import resource
import shutil
import tempfile
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from pairs import write_world
from safetensors.torch import load_file
from toys import ToyImage, ToyText

from fusemix_core import align, encode
from fusemix_core.data.items import Items
from fusemix_core.engine.checkpoint import checkpoint_folders
from fusemix_core.errors import ArtefactError, ContractError, DivergedError
from fusemix_core.runs.reporter import Reporter

ENCODERS = {"image": ToyImage, "text": ToyText}
SMALL = ["training.epochs=6", "adapter.blocks=1", "dim=8", "training.batch_size=16"]
PAPER = {"recipe": "fusemix", "device": "cpu"}


class Stop(Reporter):
    """Ctrl-C at a step."""

    def __init__(self, step):
        self.step, self.notes = step, []

    def on_step(self, step, metrics):
        if step == self.step:
            raise KeyboardInterrupt

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path / "world")


@pytest.fixture
def stopped(tmp_path, world):
    """A run that was interrupted at its fourth step; gives a function that resumes it."""
    with pytest.raises(KeyboardInterrupt):
        align(ENCODERS, world, out=tmp_path / "run", overrides=SMALL, reporter=Stop(4), **PAPER)
    return lambda: align(
        ENCODERS, world, out=tmp_path / "run", overrides=SMALL, resume=True, **PAPER
    )


@contextlib.contextmanager
def disk_of(most):
    """No file can grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# -- what is behind a run has changed ------------------------------------------------------------


def test_a_manifest_that_changed_is_no_resumption(stopped, world):
    before = world.read_text()
    world.write_text(before.replace("number 5\n", "number five\n").replace("number 5,", "five,"))
    assert world.read_text() != before
    with pytest.raises(ArtefactError, match="changed since"):
        stopped()
    world.write_text(before)
    assert stopped().results["pairs"]["train"] > 0


@pytest.mark.parametrize("finished", [True, False])
def test_a_closed_form_is_not_resumed_on_other_data(tmp_path, world, monkeypatch, finished):
    run = {"recipe": "cca", "device": "cpu", "out": tmp_path / "run"}
    with monkeypatch.context() as changed:
        if not finished:
            changed.setattr("fusemix_core.jobs.run.fit", Mock(side_effect=KeyboardInterrupt))
        with contextlib.nullcontext() if finished else pytest.raises(KeyboardInterrupt):
            align(ENCODERS, world, **run)
    kept = {path: path.read_bytes() for path in run["out"].rglob("*") if path.is_file()}
    before = world.read_text()
    fewer = "".join(before.splitlines(keepends=True)[:-9])
    changes = {"not the same": before.replace("number 5,", "five,"), "train rows, not": fewer}
    for says, text in changes.items():
        world.write_text(text)
        with pytest.raises(ArtefactError, match=f"changed since it began: .*{says}") as error:
            align(ENCODERS, world, resume=True, **run)
        assert "--out" in error.value.hint
    assert {path: path.read_bytes() for path in run["out"].rglob("*") if path.is_file()} == kept
    world.write_text(before)
    assert align(ENCODERS, world, resume=True, **run).results["pairs"]["train"] > 0


def test_an_encoder_that_changed_is_no_resumption_and_encodes_again(stopped, world, monkeypatch):
    first = encode(ENCODERS, world, device="cpu").extractions
    with monkeypatch.context() as changed:
        changed.setattr(ToyText, "mix", ToyText.mix + 0.1)
        again = encode(ENCODERS, world, device="cpu").extractions
        assert (again["image"].encoded, again["text"].encoded) == (0, 64)
        assert again["text"].fingerprint != first["text"].fingerprint
        with pytest.raises(ArtefactError, match=r"encoder.* changed since"):
            stopped()
    assert stopped().results["pairs"]["train"] > 0


def test_a_manifest_that_grows_encodes_what_is_new(world):
    encode(ENCODERS, world, device="cpu")
    rows = world.read_text().splitlines()
    world.write_text("\n".join([*rows, "0.png,a text of its own,car"]) + "\n")
    done = encode(ENCODERS, world, device="cpu").extractions
    assert (done["image"].encoded, done["text"].encoded) == (0, 1)


# -- numbers that are none -----------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_latent_that_is_no_number_names_encoder_and_item(world, monkeypatch, value):
    real = ToyText.encode

    def broken(self, batch, view="pooled"):
        latents = real(self, batch, view)
        latents[3] = value
        return latents

    with monkeypatch.context() as changed:
        changed.setattr(ToyText, "encode", broken)
        with pytest.raises(ContractError, match=r"toy-text.*finite.*number \d"):
            encode(ENCODERS, world, device="cpu")
    assert encode(ENCODERS, world, device="cpu").extractions["text"].encoded == 64


def test_a_loss_that_is_no_number_lists_its_batch_and_keeps_the_last_checkpoint(tmp_path, world):
    bad = ["training.lr=1e25", "training.warmup_lr=1e-3", "training.warmup_steps=4"]
    with pytest.raises(DivergedError, match=r"nan at step \d+ \(epoch \d+, batch \d+\)") as error:
        align(ENCODERS, world, out=tmp_path / "run", overrides=[*SMALL, *bad], **PAPER)
    assert "training.lr" in error.value.hint
    lines = json.loads((tmp_path / "run/failed_batch.json").read_text())
    assert str(tmp_path / "run/failed_batch.json") in error.value.message
    assert {line["modality"] for line in lines} == {"image", "text"}
    rows = world.read_text().splitlines()
    for line in lines:
        assert line["path"] == str(world)
        assert Path(line["item"]).name in rows[line["row"]]
    for folder in checkpoint_folders(tmp_path / "run/checkpoints"):
        assert all(t.isfinite().all() for t in load_file(folder / "state.safetensors").values())


# -- disks ---------------------------------------------------------------------------------------


def test_a_disk_that_is_full_ends_extraction_with_what_is_finished_kept(
    tmp_path, world, monkeypatch
):
    monkeypatch.setattr("fusemix_core.latents.extraction.shard_size", lambda items: 16)
    with (
        disk_of(400),
        pytest.raises(ArtefactError, match="latent store.*can't be written") as error,
    ):
        encode(ENCODERS, world, device="cpu")
    assert "Free some space" in error.value.hint
    done = encode(ENCODERS, world, device="cpu").extractions
    assert done["text"].encoded == 64


def test_a_disk_that_is_full_keeps_the_checkpoints_before(tmp_path, world, stopped):
    kept = checkpoint_folders(tmp_path / "run/checkpoints")
    with disk_of(3000), pytest.raises(ArtefactError, match="can't be written") as error:
        stopped()
    assert "Free some space" in error.value.hint and "resume" in error.value.hint
    assert checkpoint_folders(tmp_path / "run/checkpoints") == kept
    whole = align(ENCODERS, world, out=tmp_path / "whole", overrides=SMALL, **PAPER)
    for modality, adapter in stopped().model.adapters.items():
        for name, value in adapter.state_dict().items():
            assert torch.equal(value, whole.model.adapters[modality].state_dict()[name])


@pytest.fixture
def unprivileged():
    """A folder that may be read and not written, for a user who is not root."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    write_world(folder / "world")
    (folder / "home").mkdir()
    (folder / "home").chmod(0o777)
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_that_is_read_only_is_said_before_anything_is_encoded(unprivileged, monkeypatch):
    data = unprivileged / "world/pairs.csv"
    monkeypatch.setenv("FUSEMIX_HOME", str(unprivileged / "none"))
    with pytest.raises(ArtefactError, match="can't be written") as error:
        encode(ENCODERS, data, device="cpu")
    assert "FUSEMIX_HOME" in error.value.hint
    monkeypatch.setenv("FUSEMIX_HOME", str(unprivileged / "home"))
    with pytest.raises(ArtefactError, match="can't be written") as error:
        align(ENCODERS, data, out=unprivileged / "run", overrides=SMALL, **PAPER)
    assert "--out" in error.value.hint
    assert not list((unprivileged / "home").rglob("*.safetensors"))


# -- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_shard_is_made_again_and_said(tmp_path, world, damage):
    first = align(ENCODERS, world, out=tmp_path / "a", overrides=SMALL, **PAPER)
    home = Path(os.environ["FUSEMIX_HOME"])
    shards = {p: p.read_bytes() for p in home.rglob("*.safetensors")}
    path, content = next(iter(shards.items()))
    flipped = bytearray(content)
    flipped[-9] ^= 4
    path.write_bytes(content[: len(content) // 2] if damage == "cut" else flipped)
    heard = Stop(-1)
    second = align(ENCODERS, world, out=tmp_path / "b", overrides=SMALL, reporter=heard, **PAPER)
    assert any(str(path) in note for note in heard.notes)
    assert {p: p.read_bytes() for p in home.rglob("*.safetensors")} == shards
    assert second.results["test"] == first.results["test"]


def test_a_decoder_that_fails_in_a_thread_ends_the_run_and_what_is_finished_is_kept(
    world, monkeypatch
):
    monkeypatch.setattr("fusemix_core.latents.extraction.shard_size", lambda items: 16)
    load = Items.load

    def dying(self, i, sample_rate=None):
        if i == 40:
            raise MemoryError("the decoder died")
        return load(self, i, sample_rate)

    with monkeypatch.context() as changed, pytest.raises(MemoryError, match="died"):
        changed.setattr(Items, "load", dying)
        encode({"image": ToyImage}, world, device="cpu", encode_batch=4)
    done = encode({"image": ToyImage}, world, device="cpu", encode_batch=4).extractions["image"]
    assert 64 - 3 * 16 <= done.encoded < 64
