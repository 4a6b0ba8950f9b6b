import pytest
import torch

from fusemix_core.errors import ConfigError
from fusemix_core.selectors.dpp import DppSelector, dpp_of_kernel, dpp_of_latents, greedy_dpp
from fusemix_core.selectors.uniform import UniformSelector


def naive_greedy(kernel, k):
    """The largest determinant at every step, each computed anew."""
    taken = []
    while len(taken) < k:
        scores = {}
        for j in range(len(kernel)):
            if j not in taken:
                rows = torch.tensor([*taken, j])
                scores[j] = torch.linalg.det(kernel[rows][:, rows]).item()
        taken.append(max(scores, key=scores.get))
    return taken


def test_dpp_maximises_the_determinant_greedily():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(15, 6, dtype=torch.float64, generator=g)
    kernel = x @ x.T + 0.1 * torch.eye(15, dtype=torch.float64)
    assert dpp_of_kernel(kernel, 8).tolist() == naive_greedy(kernel, 8)


def test_dpp_asks_for_one_column_an_item():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(30, 8, dtype=torch.float64, generator=g)
    kernel, asked = x @ x.T, []

    def column(j):
        asked.append(j)
        return kernel[:, j]

    taken = greedy_dpp(kernel.diagonal(), column, 5)
    assert taken.tolist() == asked
    assert torch.equal(kernel, x @ x.T)


def test_dpp_does_not_take_a_copy():
    x = torch.tensor([[1.0, 0], [0, 1], [1, 0], [2, 0]])
    taken = DppSelector()(x, 4)
    assert len(taken) == 2 and 1 in taken.tolist()


def test_dpp_is_independent_of_length():
    g = torch.Generator().manual_seed(2)
    x = torch.nn.functional.normalize(torch.randn(20, 5, dtype=torch.float64, generator=g))
    x[3] *= 1 + 1e-15
    assert dpp_of_latents(x, 6)[1:].tolist() == dpp_of_latents(2 * x, 6)[1:].tolist()


def test_uniform_takes_distinct_items():
    taken = UniformSelector(seed=3)(torch.zeros(20, 2), 20)
    assert sorted(taken.tolist()) == list(range(20))
    assert taken.tolist() != UniformSelector(seed=4)(torch.zeros(20, 2), 20).tolist()


@pytest.mark.parametrize("selector", [UniformSelector(), DppSelector()])
def test_more_than_there_are_is_refused(selector):
    with pytest.raises(ConfigError, match="5 of 4"):
        selector(torch.eye(4), 5)
