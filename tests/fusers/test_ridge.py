"""Ridge regression and what it predicts of rows that are left out, against fits without them."""

import pytest
import torch

from fusemix_core.fusers.penalties import Choice, some_rows
from fusemix_core.fusers.ridge import Moments, left_out, solved


def naive(features, responses, penalties, rows):
    """Fits without `rows`, by augmented least squares, and predicts them."""
    kept = torch.ones(len(features), dtype=torch.bool)
    kept[rows] = False
    x, y = features[kept], responses[kept]
    wide = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    penalty = torch.diag(torch.cat([penalties, torch.zeros(1, dtype=x.dtype)]).sqrt())
    found = torch.linalg.lstsq(
        torch.cat([wide, penalty]), torch.cat([y, y.new_zeros(len(penalty), y.shape[1])])
    ).solution
    return features[rows] @ found[:-1] + found[-1]


@pytest.fixture
def problem():
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(90, 8, generator=draw, dtype=torch.float64)
    features -= features.mean(dim=0)
    responses = torch.randn(90, 2, generator=draw, dtype=torch.float64) + 3
    responses += features[:, :2]
    return features, responses, torch.linspace(0.5, 4, 8, dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 3, 70])
def test_a_row_left_out_with_its_group_is_predicted_by_a_fit_without_it(problem, size):
    features, responses, penalties = problem
    groups = [torch.arange(10, 10 + size)] if size > 1 else []
    got = left_out(Moments.of(features, responses), features, responses, penalties, groups)
    for row in (0, 12, 85):
        own = torch.arange(10, 10 + size) if 10 <= row < 10 + size else torch.tensor([row])
        want = naive(features, responses, penalties, own)
        torch.testing.assert_close(got[own], want, rtol=1e-9, atol=1e-9)


def test_coefficients_have_no_gradient_left(problem):
    features, responses, penalties = problem
    found = solved(Moments.of(features, responses), penalties).requires_grad_()
    fitted = features @ found + responses.mean(dim=0)
    loss = (responses - fitted).square().sum() + (penalties[:, None] * found.square()).sum()
    assert torch.autograd.grad(loss, found)[0].abs().max() < 1e-9


def test_a_block_of_noise_is_penalised_more(problem):
    features, responses, _ = problem
    responses = 3 * features[:, :2] + 0.1 * responses
    features = torch.cat([features[:, :4] / 2, features[:, 4:] / 2], dim=1)
    choice = Choice(features, responses, [4, 4])
    useful, noise = choice.each([choice.together()] * 2)
    assert useful < noise - 0.9
    assert choice.loss([useful, noise]) <= choice.loss([choice.together()] * 2)


def test_penalties_are_chosen_on_whole_groups():
    groups = [torch.arange(i, i + 4) for i in range(0, 400, 4)]
    rows, own = some_rows(400, groups, 50)
    assert 50 <= len(rows) <= 53 and len(own) * 4 == len(rows)
    assert all((rows[one] // 4).unique().numel() == 1 for one in own)
    every, same = some_rows(30, groups[:7], 50)
    assert len(every) == 30 and same == groups[:7]
