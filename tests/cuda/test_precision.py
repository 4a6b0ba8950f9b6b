"""Half precision and TF32 on a GPU: how far a loss and its gradients are from float64's."""

import pytest
import torch
from torch.nn.functional import normalize

from fusemix_core.adapters.identity import IdentityAdapter
from fusemix_core.aligners.alignment import Alignment
from fusemix_core.config import Part
from fusemix_core.interfaces import Batch
from fusemix_core.numerics import Precision, exact
from fusemix_core.registry import registry

pytestmark = pytest.mark.cuda
WIDTH = 64
NUMBERS = ("float32", "tf32", "half")
ERROR = 1e-3
"""Of a gradient, relative to its norm."""


def gradients(device, numbers, dtype, temperature, noise, objective="infonce"):
    """(loss, its gradients to the embeddings of both modalities, float64 on the CPU)."""
    draw = torch.Generator().manual_seed(0)
    x = normalize(torch.randn(384, WIDTH, generator=draw), dim=1)
    y = normalize(x + noise * torch.randn(384, WIDTH, generator=draw) / WIDTH**0.5, dim=1)
    leaves = [v.to(device, dtype).requires_grad_() for v in (x, y)]
    links = torch.arange(384, device=device)[:, None, None].expand(384, 1, 2)
    options = {"temperature": temperature} if objective == "infonce" else {}
    found = registry.build("objective", Part(objective, options)).to(device, dtype)
    adapters = {m: IdentityAdapter(WIDTH, WIDTH) for m in ("image", "text")}
    fit = Alignment(adapters, found)
    fit.precision = Precision(numbers, device.type)
    batch = Batch(dict(zip(adapters, leaves, strict=True)), links)
    with fit.precision.step():
        loss = fit.loss(fit.step(batch))
        loss.backward()
    return loss.item(), torch.cat([leaf.grad.double().flatten().cpu() for leaf in leaves])


@pytest.mark.parametrize("noise", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("temperature", [0.005, 0.07, 0.5])
@pytest.mark.parametrize("numbers", NUMBERS)
def test_gradients_of_the_loss_are_near_those_of_float64(device, numbers, temperature, noise):
    wanted, best = gradients(device, "float32", torch.float64, temperature, noise)
    loss, found = gradients(device, numbers, torch.float32, temperature, noise)
    assert loss == pytest.approx(wanted, rel=5e-3, abs=1e-5)
    if best.norm() < 1e-6:  # the loss is at its end: there is nothing to be near to
        assert found.norm() < 1e-3
        return
    assert (found - best).norm() / best.norm() <= ERROR


@pytest.mark.parametrize("numbers", NUMBERS)
def test_siglip_too(device, numbers):
    _, best = gradients(device, "float32", torch.float64, None, 1.0, "siglip")
    _, found = gradients(device, numbers, torch.float32, None, 1.0, "siglip")
    assert (found - best).norm() / best.norm() <= ERROR


def test_an_exact_scope_keeps_tf32_and_autocast_out(device):
    x, y = (torch.randn(256, 512, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    wanted = x.double() @ y.double().T
    x, y = x.to(device), y.to(device)
    with (
        Precision("half", device.type).step(),
        torch.autocast(device.type, torch.bfloat16),
        exact(),
    ):
        found = x @ y.T
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu().double(), wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "mlp", "wide"])
def test_adapters_compile_to_one_graph_that_gives_the_same(device, name):
    torch.manual_seed(0)
    adapter = registry.build("adapter", Part(name), 24, 16).to(device).eval()
    latents = torch.randn(40, 24, device=device)
    wanted = adapter(latents)
    if device.type == "cuda":
        adapter.compile(fullgraph=True)
    else:  # the form that a CPU takes has breaks, and its compiler takes minutes
        adapter.compile(backend="eager")
    torch.testing.assert_close(adapter(latents), wanted, rtol=1e-5, atol=1e-5)
