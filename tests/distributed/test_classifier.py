"""The trainer trains what is not an alignment: steps, the kept weights, checkpoints, processes."""

import signal

import pytest
import started
import torch
from distributed.processes import run_in_processes
from distributed.share_classifier import (
    StopAt,
    fitted,
    interrupt,
    killed,
    resumed_classifier,
    share_classifier,
    stopped_classifier,
)
from safetensors.torch import load_file

from fusemix_core.engine.checkpoint import latest
from fusemix_core.errors import ArtefactError


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(x, b[name]) for name, x in a.items())


def test_it_learns_and_the_best_weights_are_kept():
    _, history = fitted()
    scores = [record["score"] for record in history]
    assert max(scores) > 0.7 > 2 * scores[0] and history[-1]["best"] == max(scores)
    assert all(record["accuracy"] == record["score"] for record in history)
    assert history[-1]["loss"] < history[0]["loss"]


@pytest.mark.parametrize("step", [7, 9, 12])
def test_interrupted_and_resumed_is_never_stopped(step, tmp_path):
    want, history = fitted(0.3)
    with pytest.raises(KeyboardInterrupt):
        fitted(0.3, checkpoints=tmp_path, callbacks=[StopAt(step, interrupt)])
    assert latest(tmp_path).step == step
    got, again = fitted(0.3, checkpoints=tmp_path, resume=True)
    assert same(want, got) and again == history


@pytest.mark.parametrize("step", [5, pytest.param(14, marks=pytest.mark.long)])
def test_killed_and_resumed_is_never_stopped(step, tmp_path):
    want, history = fitted(0.3)
    child = started.Process(target=killed, args=(tmp_path, step))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    got, again = fitted(0.3, checkpoints=tmp_path, resume=True)
    assert same(want, got) and again == history


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    fitted(checkpoints=tmp_path)
    with pytest.raises(ArtefactError, match="another recipe, seed"):
        fitted(0.3, checkpoints=tmp_path, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.long), 3])
def test_in_several_processes_it_is_one_processs(count, tmp_path):
    run_in_processes(count, share_classifier, tmp_path)
    want, _ = fitted()
    for i in range(count):
        found = load_file(tmp_path / f"{i}.safetensors")
        assert all((found[name] - x).abs().max() < 1e-9 for name, x in want.items())


@pytest.mark.long  # test_fits.py has that of an aligner, by the same trainer
def test_stopped_and_resumed_in_two_processes_is_never_stopped(tmp_path):
    run_in_processes(2, stopped_classifier, tmp_path)
    run_in_processes(2, resumed_classifier, tmp_path)
    whole, *others = (
        load_file(tmp_path / f"{name}-{i}.safetensors")
        for name in ("whole", "resumed")
        for i in range(2)
    )
    assert all(same(whole, other) for other in others)
