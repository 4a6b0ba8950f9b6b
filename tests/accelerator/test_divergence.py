"""A loss that is not finite on a GPU that nobody reads at every step, and numbers read late."""

from __future__ import annotations

import json

import pytest
import torch
from accelerator.emulated import CPU, CUDA
from accelerator.subjects import Steps, pairs

from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.engine import metrics as numbers
from fusemix_core.engine.checkpoint import checkpoint_folders
from fusemix_core.engine.guard import step_unless
from fusemix_core.engine.metrics import READ_STEPS, StepMetrics, read
from fusemix_core.errors import DivergedError
from fusemix_core.interfaces import Callback, FitContext
from fusemix_core.registry import registry
from fusemix_core.runs.folder import MetricsLog


class Momentum(torch.optim.Optimizer):
    """Somebody else's optimiser, which knows of no flag and replaces what it keeps."""

    def __init__(self, groups, lr):
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                before = self.state[p].get("speed", torch.zeros_like(p))
                self.state[p]["speed"] = 0.9 * before + p.grad
                p -= group["lr"] * self.state[p]["speed"]


OPTIMISERS = pytest.mark.parametrize(
    "optimiser", ["adamw", pytest.param("lion", marks=pytest.mark.long), "momentum"]
)


@pytest.fixture(autouse=True)
def momentum(own_registry):
    registry.add_component("optimiser", "momentum", Momentum)


def spoilt(step):
    """Pairs of which an item that is first used in this step, from 1, is not a number."""
    data = pairs()
    steps = Steps(CPU, train=data)
    used = [next(steps.batches).links[:, 0, 0] for _ in range(step)]
    earlier = torch.cat([torch.tensor([], dtype=torch.int64), *used[:-1]])
    item = next(i for i in used[-1].tolist() if i not in earlier)
    data.tables["image"].latents[item] = torch.nan
    return data


def diverges(where, **how):
    steps = Steps(where, train=spoilt(3), **how)
    with pytest.raises(DivergedError) as error:
        steps.run(READ_STEPS)
    return steps, error.value


@OPTIMISERS
def test_the_third_of_twenty_steps_is_named_as_on_a_cpu(optimiser, device):
    here, wanted = diverges(CPU, optimiser=optimiser)
    there, error = diverges(CUDA, optimiser=optimiser)
    assert (here.state.step, there.state.step) == (2, READ_STEPS)
    assert error.message == wanted.message == "The loss became nan at step 3 (epoch 1, batch 3)."
    assert (error.hint, error.items) == (wanted.hint, wanted.items)
    assert all(len(ids) == 16 for ids in error.items.values())


@OPTIMISERS
def test_nothing_moves_from_the_bad_step_on(optimiser, device):
    steps = Steps(CUDA, train=spoilt(3), optimiser=optimiser)
    steps.run(2)
    kept = steps.weights()
    device.clear()
    steps.run(READ_STEPS - 3)  # one before they are read
    assert not device.waits
    assert steps.state.bad.item() == 1
    for before, after in zip(kept, steps.weights(), strict=True):
        assert torch.equal(before, after)
    with pytest.raises(DivergedError, match="at step 3 "):
        steps.state.settle()


def test_a_first_step_that_is_bad_leaves_no_moments(device):
    steps = Steps(CUDA, train=spoilt(1), optimiser="momentum")
    weights = steps.weights()
    steps.step()
    after = steps.weights()
    assert all(torch.equal(x, y) for x, y in zip(weights, after, strict=False))
    assert not any(x.any() for x in after[len(weights) :])


def test_good_steps_are_those_without_a_flag():
    def weights(bad):
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        optimiser = Momentum([{"params": layer.parameters()}], 0.1)
        for _ in range(3):
            layer(torch.ones(2, 3)).sum().backward()
            step_unless(optimiser, bad)
        return layer.weight

    assert torch.equal(weights(None), weights(torch.zeros(())))


class StopAfter(Callback):
    def __init__(self, step):
        self.step = step

    def on_step(self, step, metrics):
        if step == self.step:
            raise KeyboardInterrupt


def fit(data, folder, *callbacks, **training):
    recipe = Recipe(
        "small",
        Part("gradient"),
        dim=4,
        adapter=Part("linear"),
        mixup=Part("fusemix"),
        objective=Part("infonce"),
        training=Training(epochs=5, batch_size=8, **training),
    )
    context = FitContext(device=CUDA, checkpoints=folder, callbacks=callbacks)
    return GradientAligner().fit(data, pairs(), recipe, context)


def test_a_fit_that_is_stopped_after_a_bad_step_saves_nothing(device, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(spoilt(3), tmp_path, StopAfter(4), evaluate_every=5)
    assert not checkpoint_folders(tmp_path)


def test_an_evaluation_reads_what_is_unread_first(device, tmp_path):
    """Epochs have four steps."""
    with pytest.raises(DivergedError, match=r"nan at step 3 \(epoch 1, batch 3\)"):
        fit(spoilt(3), tmp_path)


def test_the_mean_loss_of_an_evaluation_is_that_of_all_steps(device, tmp_path):
    class Heard(Callback):
        losses, means = [], []

        def on_step(self, step, metrics):
            self.losses.append(metrics)

        def on_evaluation(self, step, metrics):
            self.means.append(metrics["loss"])

    fit(pairs(), tmp_path, heard := Heard())
    losses = [one["loss"] for one in heard.losses]
    assert heard.means == [sum(losses[i : i + 4]) / 4 for i in range(0, 20, 4)]


# -- numbers -------------------------------------------------------------------------------------


def test_numbers_are_floats_to_whoever_asks_and_read_once(device):
    temperature = torch.tensor(0.5).to(CUDA)
    metrics = StepMetrics({"loss": torch.tensor(2.0).to(CUDA), "lr": 0.1, "t": temperature})
    temperature.fill_(9.0)
    metrics.add({"norm": torch.tensor(3.0).to(CUDA), "epoch": 4})
    device.clear()
    assert list(metrics) == ["loss", "lr", "t", "norm", "epoch"] and metrics["lr"] == 0.1
    assert not metrics.known and not device.waits
    assert dict(metrics) == {"loss": 2.0, "lr": 0.1, "t": 0.5, "norm": 3.0, "epoch": 4}
    assert type(metrics["loss"]) is float and metrics.known
    assert sum(device.waits.values()) == 1


def test_numbers_of_many_steps_are_read_with_one_copy(device):
    steps = [StepMetrics({"loss": torch.tensor(float(i)).to(CUDA)}) for i in range(20)]
    device.clear()
    read(steps)
    assert sum(device.waits.values()) == 1
    assert [one["loss"] for one in steps] == list(range(20))


def test_numbers_of_the_cpu_are_known_at_once():
    loss = torch.tensor(0.1, dtype=torch.float64)
    metrics = StepMetrics({"loss": loss})
    assert metrics.known and metrics["loss"] == 0.1


def test_steps_are_read_by_the_clock_too(device, monkeypatch):
    steps = Steps(CUDA)
    steps.step()
    assert len(steps.state.unread) == 1
    monkeypatch.setattr(numbers, "READ_SECONDS", 0.0)
    steps.step()
    assert not steps.state.unread and steps.state.loss_count == 2


def test_the_log_waits_for_numbers_and_has_every_step_in_order(device, tmp_path):
    path = tmp_path / "metrics.jsonl"
    fit(pairs(), tmp_path / "c", MetricsLog(path), evaluate_every=5)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["kind"], r["step"]) for r in rows[:20]] == [("train", i + 1) for i in range(20)]
    assert rows[20]["kind"] == "validation" and rows[0].keys() >= {"loss", "lr", "temperature"}


def test_the_log_ends_before_a_bad_step(device, tmp_path):
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(DivergedError):
        fit(spoilt(3), tmp_path / "c", MetricsLog(path))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
