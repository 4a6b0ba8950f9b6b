"""The emulated device refuses what CUDA refuses, and counts what makes the host wait."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from accelerator.emulated import CPU, CUDA, Emulated
from torch import nn

WAITING = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool(x.any()),
    "if": lambda x: 1 if x[0, 0] > 0 else 0,
    "tolist": lambda x: x.tolist(),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "mask": lambda x: x[x > 0],
    "mask set": lambda x: x.clone().__setitem__(x > 0, 0.0),
    "a list": lambda x: x[[0, 1]],
    "an index on the CPU": lambda x: x[torch.tensor([0, 1])],
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "bincount": lambda x: torch.bincount(x.flatten().long().abs()),
    "repeats": lambda x: x.repeat_interleave(torch.ones(4).long().to(CUDA), dim=0),
    "to the CPU": lambda x: x.cpu(),
    "copied": lambda x: torch.empty(4, 3).copy_(x),
    "from the CPU": lambda x: torch.ones(4, 3).to(CUDA),
    "a tensor": lambda x: torch.tensor([1.0, 2.0], device=CUDA),
    "a new tensor": lambda x: x.new_tensor([1.0]),
    "cholesky": lambda x: torch.linalg.cholesky(x.T @ x + torch.eye(3, device=CUDA)),
}
FREE = {
    "arithmetic": lambda x: (x @ x.T).softmax(1).sum() * 2 + torch.tensor(1.0),
    "factories": lambda x: torch.arange(4, device=x.device) + torch.zeros((), device=CUDA),
    "pinned": lambda x: torch.ones(4, 3).pin_memory().to(CUDA, non_blocking=True),
    "an index": lambda x: x[torch.arange(2, device=CUDA)],
    "a slice": lambda x: x[1:3, :2].clone(),
    "where": lambda x: torch.where(x > 0, x, 0),
    "a cast": lambda x: x.to(torch.float16).float(),
    "a CPU tensor": lambda x: torch.ones(3).sum().item(),
    "nothing moves": lambda x: x.to(CUDA).cuda(),
}


@pytest.fixture
def x(device):
    x = torch.randn(4, 3).to(CUDA)
    device.clear()
    return x


@pytest.mark.parametrize("what", WAITING)
def test_what_waits_is_counted(what, x, device):
    WAITING[what](x)
    assert sum(device.waits.values()) >= 1


@pytest.mark.parametrize("what", FREE)
def test_what_does_not_wait_is_not_counted(what, x, device):
    FREE[what](x)
    assert not device.waits


REFUSED = {
    "sum": lambda x: x + torch.ones(4, 3),
    "product": lambda x: x @ torch.ones(3, 2),
    "cat": lambda x: torch.cat([x, torch.ones(1, 3)]),
    "where": lambda x: torch.where(torch.ones(4, 3).bool(), x, 0),
    "in place": lambda x: torch.ones(4, 3).add_(x),
    "a value set": lambda x: x.__setitem__(torch.arange(2, device=CUDA), torch.ones(2, 3)),
    "a CPU table asked on the device": lambda x: torch.ones(4, 3)[torch.arange(2, device=CUDA)],
    "a CPU generator": lambda x: torch.randn(3, device=CUDA, generator=torch.Generator()),
    "a layer": lambda x: nn.Linear(3, 2)(x),
}


@pytest.mark.parametrize("what", REFUSED)
def test_devices_do_not_mix(what, x):
    with pytest.raises(RuntimeError, match="device"):
        REFUSED[what](x)


def test_numpy_is_refused(x):
    with pytest.raises(TypeError, match="cuda:0"):
        x.numpy()


def test_gradients_are_those_of_a_cpu(device):
    def gradients(where):
        torch.manual_seed(0)
        layer = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)).to(where)
        rows = torch.randn(4, 3).to(where)
        picked = torch.tensor([0, 2, 2]).to(where)
        layer(rows)[picked].square().sum().backward()
        nn.utils.clip_grad_norm_(layer.parameters(), 0.1)
        return layer, [p.grad.cpu() for p in layer.parameters()]

    (_, wanted), (there, got) = gradients(CPU), gradients(CUDA)
    assert all(isinstance(p, Emulated) and p.device == CUDA for p in there.parameters())
    for one, other in zip(wanted, got, strict=True):
        torch.testing.assert_close(one, other)


def test_modules_move_there_and_back_and_are_copied(device):
    layer = nn.BatchNorm1d(3)
    weight = layer.weight
    layer.to(CUDA)
    assert layer.weight is weight and layer.running_mean.is_cuda
    twin = deepcopy(layer.to(torch.float64))
    assert twin.weight.device == CUDA and twin.weight.dtype == torch.float64
    assert isinstance(twin.weight, nn.Parameter) and twin.weight is not layer.weight
    layer.load_state_dict(twin.cpu().state_dict())
    assert layer.weight.is_cuda and not layer.cpu().weight.is_cuda


def test_float64_is_counted_where_it_is_made(x, device):
    x.double().sum()
    assert device.float64 == {("float64", "elsewhere"): 2}


def test_what_is_made_on_another_stream_is_awaited_before_it_is_used(device):
    side = torch.cuda.Stream(CUDA)
    with torch.cuda.stream(side):
        early = torch.ones(3).to(CUDA)
        event = side.record_event()
        late = torch.ones(3).to(CUDA)
    with pytest.raises(RuntimeError, match="before it is ready"):
        early + 1
    torch.cuda.current_stream(CUDA).wait_event(event)
    early + 1
    with pytest.raises(RuntimeError, match="before it is ready"):
        late + 1
