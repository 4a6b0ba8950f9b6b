"""Checkpoints that are written beside the training."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from fusemix_core.engine import checkpoint, loop, saver
from fusemix_core.errors import ArtefactError
from fusemix_core.interfaces import Callback
from tests.engine.test_checkpoint import StopAt, fit, same_weights


@pytest.fixture(autouse=True)
def beside(monkeypatch):
    """As on a device, with a checkpoint at every evaluation."""
    monkeypatch.setattr(loop, "Saver", partial(saver.Saver, beside=True))
    monkeypatch.setattr(saver, "SHARE", 1e9)


class Training(Callback):
    """Sets `moved` once a step was made after the first write began."""

    def __init__(self):
        self.writing, self.moved = threading.Event(), threading.Event()

    def on_step(self, step, metrics):
        if self.writing.is_set():
            self.moved.set()


def test_training_goes_on_while_a_checkpoint_is_written(split, recipe, tmp_path, monkeypatch):
    """And what is written is the state at which it was taken."""
    training, save = Training(), checkpoint.save

    def slow(taken, *rest):
        training.writing.set()
        assert training.moved.wait(30)
        return save(taken, *rest)

    data = split(70, 10)
    want = fit(recipe(), data, tmp_path / "whole")
    monkeypatch.setattr(checkpoint, "save", slow)
    with pytest.raises(RuntimeError, match="stop"):
        fit(
            recipe(),
            data,
            tmp_path / "parts",
            callbacks=[training, StopAt(7, RuntimeError("stop"))],
        )
    assert checkpoint.latest(tmp_path / "parts").step == 4
    same_weights(want, fit(recipe(), data, tmp_path / "parts", resume=True))


def test_ctrl_c_ends_when_its_checkpoint_is_on_disk(split, recipe, tmp_path):
    data = split(70, 10)
    want = fit(recipe(), data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(recipe(), data, tmp_path / "parts", callbacks=[StopAt(6, KeyboardInterrupt())])
    assert checkpoint.latest(tmp_path / "parts").step == 6
    same_weights(want, fit(recipe(), data, tmp_path / "parts", resume=True))


@pytest.mark.parametrize("bad", [4, 16])
def test_a_write_that_failed_ends_the_fit(bad, split, recipe, tmp_path, monkeypatch):
    save = checkpoint.save

    def full(taken, *rest):
        if taken.step == bad:
            raise ArtefactError("The disk is full.", "Free some space.")
        return save(taken, *rest)

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(ArtefactError, match="disk is full"):
        fit(recipe(), split(70, 10), tmp_path)
