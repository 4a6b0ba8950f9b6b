"""Losses in half precision against dense ones in float64: values and every gradient."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from methods.dense import KEPT, MADE_AGAIN, dense, error, gradients, in_blocks, in_half, pairs
from torch.nn.functional import softplus

from fusemix_core.config import Part
from fusemix_core.numerics import Precision
from fusemix_core.objectives import half, half_choice, infonce, siglip, tiles
from fusemix_core.objectives.half import Sharpness, contrast, signed_softplus
from fusemix_core.objectives.half_choice import check
from fusemix_core.objectives.half_passes import PLAIN, Entries
from fusemix_core.objectives.tiles import kept_bytes_on
from fusemix_core.registry import registry
from fusemix_core.step import Step

CPU, HALF = torch.device("cpu"), Precision("half", "cuda")


@pytest.fixture(autouse=True)
def many_tiles(monkeypatch):
    monkeypatch.setattr(half, "TILE_BYTES", 1 << 16)


@pytest.mark.parametrize("width", [512, 384, 64, 8])
@pytest.mark.parametrize("temperature", [0.005, 0.01, 0.02, 0.07, 0.5])
@pytest.mark.parametrize("form", [in_half, in_blocks])
def test_gradients_are_within_a_thousandth_of_float64(form, width, temperature):
    losses = []
    for noise in (0.1, 0.3, 1.0, 2.0):
        x, y = pairs(200, width, noise)
        wanted, of_rows = gradients(dense, x, y, temperature, torch.float64)
        if wanted < 1e-6:
            continue
        losses.append(wanted)
        value, found = gradients(form, x, y, temperature, torch.float32)
        assert value == pytest.approx(wanted, rel=1e-3)
        assert error(found[0], of_rows[0]) < 1e-3 and error(found[1], of_rows[1]) < 1e-3
        assert error(found[2], of_rows[2]) < 1e-2 * max(1, 1 / wanted)
    assert losses


@pytest.mark.parametrize("form", [in_half, in_blocks])
def test_a_loss_that_is_nearly_gone_keeps_its_gradient(form):
    """Rounded before the positive is taken off, the gradient would be noise: see below."""
    x, y = pairs(300, 512, 1.0)
    wanted, (of_x, *_) = gradients(dense, x, y, 0.022, torch.float64)
    assert wanted < 1e-5
    _, (found, *_) = gradients(form, x, y, 0.022, torch.float32)
    assert error(found, of_x) < 1e-3

    s = (x.half().float() @ y.half().float().T) / 0.022
    softmaxes = (s.softmax(1) + s.softmax(0)).half().float()
    late = (softmaxes - 2 * torch.eye(300)) @ y.half().float() / (600 * 0.022)
    assert error(late.double(), of_x) > 0.5


@pytest.mark.parametrize("temperature", [0.005, 0.5])
@pytest.mark.parametrize("width", [512, 16])
def test_what_is_kept_and_what_is_made_again_are_one(width, temperature):
    x, y = pairs(150, width, 1.0)
    of_kept = gradients(in_half, x, y, temperature, torch.float32)
    again = gradients(
        lambda *given: in_half(*given, kept=MADE_AGAIN), x, y, temperature, torch.float32
    )
    assert of_kept[0] == again[0]
    assert all(torch.equal(a, b) for a, b in zip(of_kept[1], again[1], strict=True))


@pytest.mark.parametrize("kept", [KEPT, MADE_AGAIN])
def test_signed_softplus(kept):
    x, y = pairs(90, 32, 0.5)
    i, j = torch.tensor([3, 0, 88, 3]), torch.tensor([5, 0, 1, 3])
    mask = torch.zeros(90, 90, dtype=torch.bool)
    mask[7, 9] = True
    signs = -torch.ones(90, 90, dtype=torch.float64)
    signs[i, j] = 1

    def wanted(a, b, bias):
        return softplus(-signs * (a @ b.T + bias)).masked_fill(mask, 0).sum()

    def found(a, b, bias):
        positives = Entries.of(i, j, torch.ones(4))
        return signed_softplus(a, b, bias, positives, lambda rows: mask[rows], kept)

    value, of_all = gradients(wanted, 20 * x, y, -10.0, torch.float64)
    near, got = gradients(found, 20 * x, y, -10.0, torch.float32)
    assert near == pytest.approx(value, rel=1e-4)
    for a, b in zip(got, of_all, strict=True):
        assert error(a, b) < 1e-3


OBJECTIVES = {
    "infonce": {"temperature": 0.02},
    "infonce masked": {"mask_shared": True},
    "multi-positive": {"temperature": 0.02},
    "siglip": {"scale": 50.0},
    "siglip masked": {"shared": "masked"},
    "siglip positive": {"shared": "positive"},
    "sail": {},
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("noise", [0.4, 1.0])
def test_objectives_are_what_they_are_in_float64(name, noise):
    """Three modalities with gaps, whose rows share items."""
    part = Part(name.split()[0], OBJECTIVES[name])
    g = torch.Generator().manual_seed(2)
    cause = torch.randn(60, 48, generator=g)
    links = torch.arange(60)[:, None].repeat(1, 3)
    links[30:40, 0] = torch.arange(10)
    links[::7, 1] = -1
    given = {m: cause + noise * torch.randn(60, 48, generator=g) for m in "abc"}

    def results(dtype, precision):
        rows = {m: x.to(dtype).requires_grad_() for m, x in given.items()}
        objective, step = registry.build("objective", part).to(dtype), Step.of(rows, links)
        step.precision = precision
        loss = objective(step)
        loss.backward()
        own = [p.grad.double() for p in objective.parameters() if p.grad is not None]
        return loss.item(), [x.grad.double() for x in rows.values()], own

    value, of_rows, of_own = results(torch.float64, HALF)
    near, found, own = results(torch.float32, HALF)
    assert near == pytest.approx(value, rel=1e-3)
    for a, b in zip(found, of_rows, strict=True):
        assert error(a, b) < 1e-3
    for a, b in zip(own, of_own, strict=True):
        assert (a - b).abs() < 5e-3 * b.abs() + 1e-4


def test_passes_that_fail_or_differ_are_warned_of_and_not_taken(monkeypatch):
    check(PLAIN, CPU)
    wrong = SimpleNamespace(
        statistics=PLAIN.statistics, weights=lambda *given: 1.01 * PLAIN.weights(*given)
    )
    with pytest.raises(ArithmeticError, match="other numbers"):
        check(wrong, CPU)
    monkeypatch.setattr(half_choice, "check", lambda *_: 1 / 0)
    half_choice._fused.cache_clear()
    with pytest.warns(UserWarning, match="slower without"):
        assert half_choice.passes_on(torch.device("cuda", 5)) is PLAIN
    assert half_choice.passes_on(CPU) is PLAIN
    half_choice._fused.cache_clear()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with torch on Linux only")
def test_tritons_passes_on_its_interpreter():
    """In a process of its own: Triton looks at the setting when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", str(Path(__file__).parent / "interpreted.py")]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


def test_half_is_for_float32_on_a_device_that_gains_by_it(monkeypatch):
    used = []
    monkeypatch.setattr(
        infonce, "contrast", lambda *given: used.append("contrast") or contrast(*given)
    )
    monkeypatch.setattr(
        siglip, "signed_softplus", lambda *given: used.append("softplus") or signed_softplus(*given)
    )

    def run(precision, dtype):
        used.clear()
        x, y = (t.to(dtype) for t in pairs(8, 16, 1.0))
        step = Step.of({"a": x, "b": y}, torch.arange(8)[:, None].repeat(1, 2))
        step.precision = precision
        for name in ("infonce", "siglip"):
            registry.build("objective", Part(name)).to(dtype)(step)
        return list(used)

    assert run(HALF, torch.float32) == ["contrast", "softplus"]
    assert run(Precision("tf32", "cuda"), torch.float32) == ["contrast", "softplus"]
    for precision, dtype in (
        (HALF, torch.float64),
        (Precision("half", "cpu"), torch.float32),
        (Precision("float32", "cuda"), torch.float32),
    ):
        assert run(precision, dtype) == []


def test_a_temperature_on_an_accelerator_is_read_each_hundredth_step():
    class There(torch.Tensor):
        device = torch.device("cuda", 0)
        reads = 0

        def item(self):
            There.reads += 1
            return self.as_subclass(torch.Tensor).item()

    value = torch.tensor(0.07).as_subclass(There)
    sharpness = Sharpness(0.07)
    assert not any(sharpness.fine(value, 512, step) for step in range(99)) and There.reads == 0
    value.fill_(0.01)
    assert not sharpness.fine(value, 512, 98)
    assert all(sharpness.fine(value, 512, step) for step in range(99, 199)) and There.reads == 1
    assert Sharpness(0.07).fine(value, 512, 150) and There.reads == 2  # resumed
    assert not Sharpness(0.07).fine(torch.tensor(0.07), 512, 0)
    assert Sharpness(0.07).fine(torch.tensor(0.07), 64, 0)


def test_a_gpus_losses_share_a_quarter_of_its_free_memory(monkeypatch):
    tiles._free_bytes.cache_clear()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (140 << 30, 141 << 30))
    assert kept_bytes_on(torch.device("cuda", 0)) == 35 << 30
    assert kept_bytes_on(torch.device("cuda", 0), losses=10) == (35 << 30) // 10
    assert kept_bytes_on(torch.device("cpu"), losses=10) == tiles.KEPT_BYTES
    tiles._free_bytes.cache_clear()
