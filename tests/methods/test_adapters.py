import math

import pytest
import torch

from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.adapters.mlp import MlpAdapter
from fusemix_core.errors import ConfigError


def naive_norm(row, weight, bias):
    mean = sum(row) / len(row)
    variance = sum((v - mean) ** 2 for v in row) / len(row)
    return [
        (v - mean) / math.sqrt(variance + 1e-5) * w + b
        for v, w, b in zip(row, weight, bias, strict=True)
    ]


def naive_linear(row, weight, bias):
    return [
        sum(a * b for a, b in zip(row, w, strict=True)) + c
        for w, c in zip(weight, bias, strict=True)
    ]


def test_mlp_is_what_its_docstring_says():
    torch.manual_seed(0)
    adapter = MlpAdapter(5, 3, blocks=2, expansion=2.5).double()
    for p in adapter.parameters():
        torch.nn.init.normal_(p)
    state = {n: p.tolist() for n, p in adapter.state_dict().items()}
    x = torch.randn(4, 5, dtype=torch.float64)
    want = []
    for row in x.tolist():
        for i in range(2):
            b = f"block{i}"
            h = naive_norm(row, state[f"{b}.ln.weight"], state[f"{b}.ln.bias"])
            h = naive_linear(h, state[f"{b}.fc1.weight"], state[f"{b}.fc1.bias"])
            assert len(h) == 12
            h = [u / 2 * (1 + math.erf(u / math.sqrt(2))) for u in h]
            h = naive_linear(h, state[f"{b}.fc2.weight"], state[f"{b}.fc2.bias"])
            row = [a + b for a, b in zip(row, h, strict=True)]
        h = naive_norm(row, state["out_norm.weight"], state["out_norm.bias"])
        want.append(naive_linear(h, state["out.weight"], state["out.bias"]))
    torch.testing.assert_close(adapter(x), torch.tensor(want, dtype=torch.float64))


def test_mlp_drops_out_in_training_only():
    adapter = MlpAdapter(8, 4, blocks=1, dropout=0.5)
    x = torch.randn(3, 8)
    assert not torch.equal(adapter(x), adapter(x))
    adapter.eval()
    assert torch.equal(adapter(x), adapter(x))


@pytest.mark.parametrize("options", [{"blocks": -1}, {"expansion": 0.0}, {"dropout": 1.0}])
def test_mlp_refuses_impossible_options(options):
    with pytest.raises(ConfigError, match="can't have"):
        MlpAdapter(8, 4, **options)


def test_linear_starts_from_another():
    ours, theirs = LinearAdapter(6, 2), LinearAdapter(6, 2, bias=False)
    ours.start_from(theirs)
    x = torch.randn(5, 6)
    torch.testing.assert_close(ours(x), theirs(x))


def test_linear_refuses_maps_it_cannot_express():
    with pytest.raises(ConfigError, match="shape"):
        LinearAdapter(6, 2).start_from(LinearAdapter(6, 3))
    with pytest.raises(ConfigError, match="offset"):
        LinearAdapter(6, 2, bias=False).start_from(LinearAdapter(6, 2))
    with pytest.raises(ConfigError, match="MlpAdapter"):
        LinearAdapter(6, 2).start_from(MlpAdapter(6, 2))
