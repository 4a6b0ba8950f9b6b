"""Near-duplicates and outliers, against the naive form."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.evaluation import similar as module
from fusemix_core.evaluation.similar import Similar, centred_rows, kept_of, similar
from fusemix_core.interfaces import ResidentLatents


@pytest.fixture
def rows():
    found = torch.randn(70, 12, generator=torch.Generator().manual_seed(0))
    found[50] = found[3] + 0.01
    found[60] = found[3] - 0.02
    return normalize(found, dim=1)


@pytest.mark.parametrize("block", [7, 64, 1_000])
def test_pairs_and_nearness_are_those_of_all_products_at_once(rows, block, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", block)
    monkeypatch.setattr(module, "_COLUMNS", block + 3)
    found = similar(rows, 0.6)
    whole = rows @ rows.T
    i, j = (whole.triu(1) >= 0.6).nonzero(as_tuple=True)
    assert {tuple(p) for p in found.pairs.tolist()} == set(zip(i.tolist(), j.tolist(), strict=True))
    whole.fill_diagonal_(-1)
    near = whole.topk(10, dim=1).values.mean(1).numpy()
    np.testing.assert_allclose(found.nearness, near, atol=1e-6)


def test_an_item_unlike_all_others_is_an_outlier():
    many = torch.randn(60, 6, generator=torch.Generator().manual_seed(1)) * 0.1
    many[:, 0] += 1
    many[7] = torch.tensor([-1.0, 0, 0, 0, 0, 0])
    found = similar(normalize(many, dim=1))
    assert found.outliers()[0] == 7
    assert not len(similar(normalize(many[:20], dim=1)).outliers())  # too few to say


def test_no_item_and_one_item_have_nothing_near():
    assert len(similar(torch.zeros(0, 4)).pairs) == 0
    assert np.isnan(similar(torch.ones(1, 4) / 2).nearness).all()


def test_too_many_near_duplicates_say_what_to_do(monkeypatch):
    monkeypatch.setattr(module, "_MOST", 10)
    with pytest.raises(ConfigError, match="Raise --threshold|More than 10"):
        similar(torch.ones(20, 4) / 2)


def test_rows_are_centred_so_that_one_threshold_suits_several_encoders():
    latents = torch.randn(30, 5, generator=torch.Generator().manual_seed(2)) + 10
    raw = normalize(latents, dim=1)
    assert (raw @ raw.T).min() > 0.95
    found = centred_rows(ResidentLatents(latents), torch.arange(30))
    assert (found @ found.T).min() < 0
    torch.testing.assert_close(found.norm(dim=1), torch.ones(30))


def test_what_is_left_out_is_near_to_what_is_kept_in_its_place():
    # 0-1 and 1-2 are near, 0-2 are not: 0 and 2 are kept, no chain
    found = Similar(np.array([[0, 1], [1, 2]]), np.array([0.96, 0.99]), np.zeros(4))
    assert kept_of(found, [0, 1, 2], 4).tolist() == [0, 0, 2, 3]
    assert kept_of(found, [1, 0, 2], 4).tolist() == [1, 1, 1, 3]
    # of two that are kept, the nearer one
    assert kept_of(found, [0, 2, 1], 4).tolist() == [0, 2, 2, 3]
