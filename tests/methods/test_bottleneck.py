"""The fast form of the inverted bottleneck against the plain one, by torch's own modules."""

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu

from fusemix_core.adapters import bottleneck as room
from fusemix_core.adapters.bottleneck import bottleneck
from fusemix_core.adapters.mlp import Block


@pytest.fixture(params=[torch.float64, torch.float32])
def parts(request):
    torch.manual_seed(0)
    fc1, fc2 = nn.Linear(12, 40), nn.Linear(40, 12)
    x, residual = torch.randn(90, 12), torch.randn(90, 12)
    modules = nn.ModuleList([fc1, fc2]).to(request.param)
    return [t.to(request.param).requires_grad_() for t in (x, residual)], modules


@pytest.fixture(autouse=True)
def many_chunks(monkeypatch):
    monkeypatch.setattr(room, "_CHUNK", 640)


def weights(fc1, fc2):
    return fc1.weight, fc1.bias, fc2.weight, fc2.bias


def gradients(loss, inputs, modules):
    return torch.autograd.grad(loss, [*inputs, *modules.parameters()], retain_graph=True)


def near(got, wanted):
    tolerance = 1e-12 if wanted.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(
        got, wanted, rtol=tolerance, atol=tolerance * wanted.abs().max().item()
    )


def test_without_dropout_it_is_the_plain_form_gradients_too(parts):
    (x, residual), (fc1, fc2) = parts
    factors = torch.randn_like(residual)
    fast = bottleneck(x, *weights(fc1, fc2), residual)
    plain = residual + fc2(gelu(fc1(x)))
    near(fast, plain)
    for got, wanted in zip(
        gradients((fast * factors).sum(), *parts),
        gradients((plain * factors).sum(), *parts),
        strict=True,
    ):
        near(got, wanted)


def test_with_dropout_it_is_the_plain_form_with_the_same_values_dropped(parts, monkeypatch):
    (x, residual), (fc1, fc2) = parts
    drops = []
    drop = room._Drop.__call__

    def noted(self, rows):
        before = rows.clone()
        drop(self, rows)
        drops.append(rows != before)

    monkeypatch.setattr(room._Drop, "__call__", noted)
    fast = bottleneck(x, *weights(fc1, fc2), residual, dropout=0.6)
    dropped = torch.cat(drops)
    plain = residual + fc2(gelu(fc1(x)).masked_fill(dropped, 0) / (1 - 0.6))
    near(fast, plain)
    factors = torch.randn_like(residual)
    for got, wanted in zip(
        gradients((fast * factors).sum(), *parts),
        gradients((plain * factors).sum(), *parts),
        strict=True,
    ):
        near(got, wanted)


@pytest.mark.parametrize("dropout", [0.003, 0.1, 0.6, 0.95])
def test_the_share_that_is_dropped(dropout):
    torch.manual_seed(0)
    rows = torch.zeros(4000, 256)
    room._Drop(dropout)(rows)
    share = (rows != 0).double().mean().item()
    # Rows share their threshold: 1/256 at most between two of them, beside the binomial spread.
    spread = (dropout * (1 - dropout) / rows.numel()) ** 0.5 + (1 / 256) / 4000**0.5
    assert abs(share - dropout) < 4 * spread


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_dropped_leaves_exactly_nothing(dtype):
    hidden = (torch.randn(1000, 40, dtype=dtype) * 30 - room._DROPPED).requires_grad_()
    active = gelu(hidden)
    active.sum().backward()
    assert (active == 0).all() and (hidden.grad == 0).all()


def test_the_draw_follows_torchs_generator(parts):
    (x, residual), (fc1, fc2) = parts
    torch.manual_seed(3)
    first = bottleneck(x, *weights(fc1, fc2), residual, dropout=0.5)
    second = bottleneck(x, *weights(fc1, fc2), residual, dropout=0.5)
    torch.manual_seed(3)
    again = bottleneck(x, *weights(fc1, fc2), residual, dropout=0.5)
    assert torch.equal(first, again) and not torch.equal(first, second)


def test_evaluation_and_training_without_dropout_agree(parts):
    (x, residual), (fc1, fc2) = parts
    with torch.no_grad():
        evaluated = bottleneck(x, *weights(fc1, fc2), residual)
    near(evaluated, bottleneck(x, *weights(fc1, fc2), residual).detach())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_block_on_latents_has_the_gradients_of_one_on_anything(dtype):
    torch.manual_seed(0)
    block = Block(12, 3.0, dropout=0.0).to(dtype)
    for p in block.parameters():
        torch.nn.init.normal_(p)
    x, factors = torch.randn(50, 12, dtype=dtype), torch.randn(50, 12, dtype=dtype)
    (block(x) * factors).sum().backward()
    on_latents = [p.grad.clone() for p in block.parameters()]
    block.zero_grad()
    (block(x.clone().requires_grad_()) * factors).sum().backward()
    for got, parameter in zip(on_latents, block.parameters(), strict=True):
        near(got, parameter.grad)


def test_it_runs_under_autocast():
    torch.manual_seed(0)
    block, x = Block(12, 4.0, 0.3), torch.randn(30, 12)
    block.eval()
    wanted = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = block(x)
    found.sum().backward()
    assert found.dtype == torch.float32
    assert (found - wanted).norm() < 1e-2 * wanted.norm()
    assert all(p.grad.dtype == torch.float32 for p in block.parameters())
