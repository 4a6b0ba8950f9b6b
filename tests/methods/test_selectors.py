import math

import pytest
import torch

from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.interfaces import Callback, FitContext, PairedLatents, ResidentLatents
from fusemix_core.selectors.dpp import (
    CosineKernel,
    DppSelector,
    GivenKernel,
    dpp_of_kernel,
    dpp_of_latents,
)
from fusemix_core.selectors.greedy import lazy_greedy
from fusemix_core.selectors.uniform import UniformSelector

TOLERANCE = 1e-10
TYPES = [torch.float32, torch.float64]


def latents(n, dim, seed=0):
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def matrix(x):
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    kernel = (unit @ unit.T + 1).square()
    kernel.diagonal().copy_(torch.where(x.any(dim=1), 4.0, 1.0))
    return kernel


def by_determinants(kernel, k):
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


def plain_greedy(kernel, k):
    """Every residual at every step."""
    residual, taken = kernel.diagonal().clone(), []
    rows = kernel.new_zeros(k, len(kernel))
    while len(taken) < k and residual.max() >= TOLERANCE:
        best = int((residual >= residual.max() - TOLERANCE).nonzero()[0])
        row = (kernel[:, best] - rows[:, best] @ rows) / math.sqrt(residual[best])
        rows[len(taken)] = row
        residual -= row.square()
        taken.append(best)
        residual[taken] = -math.inf
    return taken


def lazy(kernel, k, **how):
    return lazy_greedy(kernel, k, TOLERANCE, **how).tolist()


def pairs_of(*tables, links=None):
    tables = {m: ResidentLatents(x) for m, x in zip(("image", "text"), tables, strict=False)}
    if links is None:
        links = torch.arange(len(tables["image"]))[:, None].repeat(1, len(tables))
    return PairedLatents(tables, links)


def select(selector, pairs, k, **context):
    return selector.select(pairs, k, FitContext(**context)).tolist()


def test_dpp_maximises_the_determinant_greedily():
    x = latents(15, 6)
    kernel = x @ x.T + 0.1 * torch.eye(15, dtype=torch.float64)
    assert dpp_of_kernel(kernel, 8).tolist() == by_determinants(kernel, 8)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("hot", [1, 7, 40, 10_000])
def test_lazy_is_plain(hot, dtype):
    x = latents(400, 24) * torch.linspace(1, 3, 24)
    kernel = CosineKernel(ResidentLatents(x), torch.arange(400), torch.device("cpu"))
    assert lazy(kernel, 100, hot=hot, dtype=dtype) == plain_greedy(matrix(x), 100)


@pytest.mark.parametrize("dtype", TYPES)
def test_lazy_is_plain_where_rows_are_refreshed_in_several_steps(dtype, monkeypatch):
    monkeypatch.setattr("fusemix_core.selectors.greedy.STEP", 5)
    monkeypatch.setattr("fusemix_core.selectors.greedy.BATCH", 13)
    x = latents(400, 12)
    kernel = CosineKernel(ResidentLatents(x), torch.arange(400), torch.device("cpu"))
    assert lazy(kernel, 60, hot=20, dtype=dtype) == plain_greedy(matrix(x), 60)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("hot", [1, 5, 1_000])
def test_lazy_is_plain_with_many_duplicates_until_nothing_is_left(hot, dtype):
    x = latents(25, 8, seed=1)
    x[3] = 0
    x = x[torch.randint(25, (300,), generator=torch.Generator().manual_seed(2))]
    kernel = CosineKernel(ResidentLatents(x), torch.arange(300), torch.device("cpu"))
    wanted = plain_greedy(matrix(x), 100)
    assert lazy(kernel, 100, hot=hot, dtype=dtype) == wanted
    assert len(wanted) == len(x.unique(dim=0))


@pytest.mark.parametrize("hot", [1, 5, 1_000])
def test_of_equal_residuals_the_first_is_taken(hot):
    x = torch.eye(40, dtype=torch.float64).repeat(3, 1)
    kernel = CosineKernel(ResidentLatents(x), torch.arange(120), torch.device("cpu"))
    assert lazy(kernel, 120, hot=hot) == list(range(40))


@pytest.mark.parametrize("hot", [1, 5, 1_000])
@pytest.mark.parametrize("rank", [3, 30])
def test_a_kernel_of_low_rank_gives_fewer(rank, hot):
    x = latents(200, rank, seed=3)
    kernel = x @ x.T
    taken = lazy(GivenKernel(kernel), 60, hot=hot)
    assert taken == plain_greedy(kernel, 60) and len(taken) == rank


def test_few_items_are_looked_at():
    """Of items far from the largest residual no bound is refreshed again and again."""
    x, asked = latents(3000, 16) * torch.logspace(0, -1, 16), []

    class Counting(CosineKernel):
        def take(self, index, dtype):
            asked.append(len(index))
            return super().take(index, dtype)

    lazy(Counting(ResidentLatents(x), torch.arange(3000), torch.device("cpu")), 100, hot=64)
    assert sum(asked) < 20 * 3000


def test_dpp_is_independent_of_length():
    x = latents(50, 5, seed=2)
    assert dpp_of_latents(x, 12).tolist() == dpp_of_latents(x * x[:, :1].abs(), 12).tolist()


def test_dpp_chooses_by_a_modality_among_the_first_rows_of_its_items():
    image, text = latents(6, 4), latents(9, 4, seed=5)
    item = torch.tensor([5, 5, -1, 0, 3, 0, 1, 2, 4])
    pairs = pairs_of(image, text, links=torch.stack([item, torch.arange(9)], dim=1))
    rows = torch.tensor([0, 3, 4, 6, 7, 8])
    wanted = rows[dpp_of_latents(image[item[rows]], 6)].tolist()
    assert select(DppSelector(), pairs, 9) == select(DppSelector(by="image"), pairs, 6) == wanted
    assert select(DppSelector(by="text"), pairs, 9) == dpp_of_latents(text, 9).tolist()
    with pytest.raises(UnknownNameError, match="sound"):
        select(DppSelector(by="sound"), pairs, 3)


def test_dpp_tells_how_far_it_is():
    class Told(Callback):
        seen = []

        def on_pairs(self, done, total):
            self.seen.append((done, total))

    select(DppSelector(), pairs_of(latents(20, 8)), 7, callbacks=[Told()])
    assert Told.seen[-1] == (7, 7)


def test_no_memory_for_so_many_is_told():
    with pytest.raises(ConfigError, match="no memory to choose 10,000,000 items"):
        lazy(GivenKernel(torch.eye(3)), 10_000_000)


def test_uniform_takes_distinct_rows_by_the_seed_alone():
    pairs = pairs_of(torch.zeros(20, 2))
    taken = select(UniformSelector(), pairs, 20, seed=3)
    assert sorted(taken) == list(range(20))
    assert taken == select(UniformSelector(), pairs, 20, seed=3)
    assert taken != select(UniformSelector(), pairs, 20, seed=4)


@pytest.mark.parametrize("selector", [UniformSelector(), DppSelector()])
def test_more_than_there_are_is_refused(selector):
    with pytest.raises(ConfigError, match="5 of 4"):
        select(selector, pairs_of(torch.eye(4)), 5)
    assert select(selector, pairs_of(torch.eye(4)), 0) == []
