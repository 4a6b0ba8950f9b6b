"""The tiled reductions against dense ones in float64: values and every gradient."""

import pytest
import torch
from torch.nn.functional import normalize, softplus

from fusemix_core.objectives import tiles
from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.objectives.tiles import none_excluded, softplus_sum, two_way_logsumexp
from fusemix_core.step import Step

KEPT, MADE_AGAIN = 1 << 30, 0


@pytest.fixture(autouse=True)
def many_tiles(monkeypatch):
    monkeypatch.setattr(tiles, "TILE_BYTES", 1 << 12)


def rows(n, m, dtype, temperature, seed=0):
    g = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(k, 16, dtype=torch.float64, generator=g) for k in (n, m))
    a, b = normalize(a, dim=1) / temperature, normalize(b, dim=1)
    return a.to(dtype).requires_grad_(), b.to(dtype).requires_grad_()


def near(got, wanted, tolerance):
    scale = wanted.abs().max().clamp(min=1e-30)
    assert ((got.double() - wanted).abs().max() / scale).item() < tolerance


@pytest.mark.parametrize("kept", [KEPT, MADE_AGAIN])
@pytest.mark.parametrize("excluding", [False, True])
@pytest.mark.parametrize("shape", [(100, 100), (257, 91), (65, 300), (1, 7)])
@pytest.mark.parametrize("temperature", [0.5, 0.07, 0.01, 0.001])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_logsumexp_both_ways(dtype, temperature, shape, excluding, kept):
    a, b = rows(*shape, dtype, temperature)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.3 * excluding
    mask[:, 0] = False
    mask[0] = False
    by_row, by_column = two_way_logsumexp(a, b, lambda part: mask[part], kept)
    g = torch.Generator().manual_seed(2)
    weight_row, weight_column = (torch.randn(k, generator=g, dtype=dtype) for k in shape)
    ((by_row * weight_row).sum() + (by_column * weight_column).sum()).backward()

    x, y = (t.detach().double().requires_grad_() for t in (a, b))
    s = (x @ y.T).masked_fill(mask, -torch.inf)
    dense_row, dense_column = s.logsumexp(1), s.logsumexp(0)
    ((dense_row * weight_row).sum() + (dense_column * weight_column).sum()).backward()
    tolerance = 1e-11 if dtype == torch.float64 else 3e-4
    near(by_row, dense_row, tolerance)
    near(by_column, dense_column, tolerance)
    near(a.grad, x.grad, tolerance)
    near(b.grad, y.grad, tolerance)


@pytest.mark.parametrize("temperature", [0.07, 0.001])
@pytest.mark.parametrize("kept", [KEPT, MADE_AGAIN])
def test_what_is_excluded_altogether_is_minus_infinity_and_moves_nothing(kept, temperature):
    a, b = rows(9, 5, torch.float64, temperature)
    mask = torch.zeros(9, 5, dtype=torch.bool)
    mask[3], mask[:, 2] = True, True
    by_row, by_column = two_way_logsumexp(a, b, lambda part: mask[part], kept)
    assert by_row[3] == -torch.inf and by_column[2] == -torch.inf
    assert by_row[[0, 8]].isfinite().all() and by_column[[0, 4]].isfinite().all()
    by_row[by_row.isfinite()].sum().backward()
    assert (a.grad[3] == 0).all() and a.grad.isfinite().all() and b.grad.isfinite().all()


@pytest.mark.parametrize("kept", [KEPT, MADE_AGAIN])
def test_softplus_sum(kept):
    a, b = rows(70, 33, torch.float64, 0.1)
    bias = torch.tensor(-4.0, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(70, 33, generator=torch.Generator().manual_seed(1)) < 0.1
    total = softplus_sum(a, b, bias, lambda part: mask[part], kept)
    total.backward()
    x, y, z = (t.detach().requires_grad_() for t in (a, b, bias))
    dense = softplus(x @ y.T + z).masked_fill(mask, 0).sum()
    dense.backward()
    for got, wanted in ((total, dense), (a.grad, x.grad), (b.grad, y.grad), (bias.grad, z.grad)):
        near(got, wanted, 1e-12)


@pytest.mark.parametrize("kept", [KEPT, MADE_AGAIN])
def test_backward_twice_gives_twice(kept):
    a, b = rows(50, 40, torch.float64, 0.1)
    total = sum(t.sum() for t in two_way_logsumexp(a, b, none_excluded, kept))
    total.backward(retain_graph=True)
    once = a.grad.clone()
    total.backward()
    assert torch.equal(a.grad, 2 * once)


@pytest.mark.parametrize("temperature", [0.001, 0.07, 0.5])
def test_infonce_is_the_dense_loss_its_temperatures_gradient_too(temperature):
    a, b = rows(130, 130, torch.float64, 1.0)
    loss = InfoNCE(temperature=temperature).double()
    links = torch.arange(130)[:, None, None].expand(130, 1, 2)
    value = loss(Step.of({"a": a, "b": b}, links))
    value.backward()
    x, y = (t.detach().requires_grad_() for t in (a, b))
    t = loss.temperature.detach().clone().requires_grad_()
    s = normalize(x, dim=1) @ normalize(y, dim=1).T / t
    dense = (s.logsumexp(1) + s.logsumexp(0)).mean() / 2 - s.diagonal().mean()
    dense.backward()
    for got, wanted in (
        (value, dense),
        (a.grad, x.grad),
        (b.grad, y.grad),
        (loss.temperature.grad, t.grad),
    ):
        near(got, wanted, 1e-9)
