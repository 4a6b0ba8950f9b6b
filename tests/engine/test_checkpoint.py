"""Stopped and resumed is never stopped, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from itertools import product

import pytest
import torch
from safetensors.torch import load_file

from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.engine import checkpoint, saver
from fusemix_core.errors import ArtefactError, RunExistsError
from fusemix_core.interfaces import Callback, FitContext

RECIPES = {
    "everything": {"ema": 0.9, "clip_norm": 1.0, "weight_decay": 0.2, "schedule": "epoch-cosine"},
    "plain": {},
    "patience": {"patience": 2, "lr": 0.0, "min_lr": 0.0, "warmup_lr": 0.0, "epochs": 9},
}


class StopAt(Callback):
    """Raises after a step, as Ctrl-C or a fault would."""

    def __init__(self, step, error):
        self.step, self.error = step, error

    def on_step(self, step, metrics):
        if step == self.step:
            raise self.error


class Record(Callback):
    def __init__(self):
        self.steps, self.evaluations = [], []

    def on_step(self, step, metrics):
        self.steps.append((step, dict(metrics)))

    def on_evaluation(self, step, metrics):
        self.evaluations.append({"step": step, **metrics})


def fit(recipe, data, folder, resume=False, callbacks=()):
    context = FitContext(seed=3, checkpoints=folder, resume=resume, callbacks=callbacks)
    return GradientAligner().fit(*data, recipe, context)


def same_weights(a, b):
    assert a.keys() == b.keys()
    for modality in a:
        x, y = a[modality].state_dict(), b[modality].state_dict()
        assert x.keys() == y.keys()
        assert all(torch.equal(x[n], y[n]) for n in x), modality


def same_checkpoint(a, b):
    """Every tensor and every number of the newest checkpoints are equal."""
    a, b = checkpoint.latest(a), checkpoint.latest(b)
    assert a.values == b.values
    x, y = (load_file(c.folder / "state.safetensors") for c in (a, b))
    assert x.keys() == y.keys()
    assert all(torch.equal(x[n], y[n]) for n in x)


CTRL_C, FAULT = KeyboardInterrupt, RuntimeError
SOON = [("everything", CTRL_C, step) for step in (7, 8, 9)]
SOON += [("everything", FAULT, 7), ("plain", CTRL_C, 8), ("patience", CTRL_C, 9)]
STOPPED = [
    pytest.param(*case, marks=[pytest.mark.long] * (case not in SOON))
    for case in product(RECIPES, (CTRL_C, FAULT), (7, 8, 9))
]


@pytest.mark.parametrize(("name", "kind", "step"), STOPPED)
def test_resumed_is_never_stopped(name, kind, step, split, recipe, tmp_path):
    """Stopped in the middle of an epoch (4 steps each), at its last step, and at its first."""
    error = kind("power cut")
    data, settings = split(70, 24, widths=(12, 9, 7), missing=0.3), recipe(**RECIPES[name])
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    record, again = Record(), Record()
    want = fit(settings, data, whole, callbacks=[record])
    with pytest.raises(type(error)):
        fit(settings, data, parts, callbacks=[StopAt(step, error)])
    at = checkpoint.latest(parts).step
    assert at == step if isinstance(error, KeyboardInterrupt) else at <= step
    torch.manual_seed(123)
    got = fit(settings, data, parts, resume=True, callbacks=[again])

    same_weights(want, got)
    same_checkpoint(whole, parts)
    assert again.steps == [s for s in record.steps if s[0] > at]
    assert checkpoint.latest(parts).values["history"] == record.evaluations


def test_a_finished_fit_resumes_to_its_result(split, recipe, tmp_path):
    data, record = split(40, 10), Record()
    want = fit(recipe(), data, tmp_path)
    same_weights(want, fit(recipe(), data, tmp_path, resume=True, callbacks=[record]))
    assert record.steps == []


def test_resume_without_a_checkpoint_starts(split, recipe, tmp_path):
    data = split(40, 10)
    same_weights(
        fit(recipe(), data, tmp_path / "a"), fit(recipe(), data, tmp_path / "b", resume=True)
    )


def test_a_start_is_scored_once_across_a_resumption(split, recipe, tmp_path, components):
    from fusemix_core.config import Part

    data, settings = split(40, 20), recipe(adapter=Part("linear"), start=Part("true-map"))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    want = fit(settings, data, whole)
    with pytest.raises(KeyboardInterrupt):
        fit(settings, data, parts, callbacks=[StopAt(1, KeyboardInterrupt())])
    same_weights(want, fit(settings, data, parts, resume=True))
    history = checkpoint.latest(parts).values["history"]
    assert [h["epoch"] for h in history] == [0, 1, 2, 3, 4]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_waits_for_the_end_of_the_step(split, recipe, tmp_path):
    class CtrlC(Callback):
        """The signal arrives in step 6; what follows in that step still happens."""

        def __init__(self):
            self.last, self.heard = 0, False

        def on_step(self, step, metrics):
            if step == 6:
                os.kill(os.getpid(), signal.SIGINT)
                assert self.heard  # at once: before the step ends
            self.last = step

        def on_interrupt(self):
            self.heard = True

    data, callback = split(70, 10), CtrlC()
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(recipe(), data, tmp_path / "parts", callbacks=[callback])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert callback.last == checkpoint.latest(tmp_path / "parts").step == 6
    want = fit(recipe(), data, tmp_path / "whole")
    same_weights(want, fit(recipe(), data, tmp_path / "parts", resume=True))


def test_the_last_two_checkpoints_are_kept(split, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(saver, "SHARE", 1e9)
    fit(recipe(), split(70, 10), tmp_path)
    assert [p.name for p in checkpoint.checkpoint_folders(tmp_path)] == ["step-12", "step-16"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-12", "step-16"]


def test_slow_checkpoints_are_thinned_out_but_never_the_last(split, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(saver, "SHARE", 0.0)
    fit(recipe(), split(70, 10), tmp_path)
    assert [p.name for p in checkpoint.checkpoint_folders(tmp_path)] == ["step-4", "step-16"]


def test_an_unfinished_write_is_not_a_checkpoint(split, recipe, tmp_path):
    data = split(40, 10)
    (tmp_path / ".step-99.tmp").mkdir(parents=True)
    (tmp_path / ".step-99.tmp" / "state.json").write_text("{}")
    assert checkpoint.latest(tmp_path) is None
    fit(recipe(), data, tmp_path)
    assert not (tmp_path / ".step-99.tmp").exists()


def test_an_earlier_runs_checkpoints_are_not_mixed_in(split, recipe, tmp_path):
    fit(recipe(), split(40, 10), tmp_path)
    with pytest.raises(RunExistsError, match="step-8") as error:
        fit(recipe(), split(40, 10), tmp_path)
    assert "another folder" in error.value.hint


@pytest.mark.parametrize("what", ["recipe", "data", "latents", "seed"])
def test_another_runs_checkpoint_is_refused(what, split, recipe, tmp_path):
    fit(recipe(), split(40, 10), tmp_path)
    settings = recipe(lr=1e-4) if what == "recipe" else recipe()
    data = split(44, 10) if what == "data" else split(40, 10)
    context = FitContext(
        seed=4 if what == "seed" else 3,
        checkpoints=tmp_path,
        resume=True,
        latents="others" if what == "latents" else "",
    )
    with pytest.raises(ArtefactError, match="another recipe, seed, dataset"):
        GradientAligner().fit(*data, settings, context)


def test_new_words_about_a_recipe_do_not_matter(split, recipe, tmp_path):
    data = split(40, 10)
    want = fit(recipe(), data, tmp_path)
    same_weights(want, fit(replace(recipe(), summary="new words"), data, tmp_path, resume=True))


@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_checkpoint_is_named(file, damage, split, recipe, tmp_path):
    fit(recipe(), split(40, 10), tmp_path)
    path = checkpoint.latest(tmp_path).folder / file
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "flipped":
        content = bytearray(path.read_bytes())
        content[-30] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    with pytest.raises(ArtefactError, match="step-8") as error:
        fit(recipe(), split(40, 10), tmp_path, resume=True)
    assert "Delete that folder" in error.value.hint
    shutil.rmtree(path.parent)
    fit(recipe(), split(40, 10), tmp_path, resume=True)


def test_an_unknown_format_is_refused(split, recipe, tmp_path):
    fit(recipe(), split(40, 10), tmp_path)
    path = checkpoint.latest(tmp_path).folder / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(ArtefactError, match="format 99"):
        fit(recipe(), split(40, 10), tmp_path, resume=True)
