"""Pairs compared with items that they are not paired with, against the naive form."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from fusemix_core.evaluation.mispaired import fits
from fusemix_core.evaluation.pairing import (
    Others,
    Partners,
    among,
    paired_scores,
    percentiles,
    unpaired,
)
from fusemix_core.metrics.ranks import roc_auc


def rows(n, d=8, seed=0):
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_ranks_and_nearness_leave_out_all_partners_of_the_query():
    a, b = rows(6), rows(40, seed=1)
    links = np.array([[0, 3], [0, 7], [1, 3], [2, 9], [5, 0]])
    others = Others.sample(np.arange(40), lambda ids: b[ids])
    own = (a[links[:, 0]] * b[links[:, 1]]).sum(1)
    partners = Partners(links[:, 0], links[:, 1], others)
    found = among(a[links[:, 0]], links[:, 0], own, others, partners)
    for i, (q, t) in enumerate(links.tolist()):
        free = [j for j in range(40) if [q, j] not in links.tolist()]
        scores = (b[free] @ a[q]).sort(descending=True).values
        assert found.rank[i] == 1 + int((scores >= a[q] @ b[t] - 1e-6).sum())
        assert found.near[i] == pytest.approx(float(scores[:10].mean()), abs=1e-6)
        assert int(found.best[i]) in free and bool(found.beats[i]) == bool(scores[0] > own[i])


def test_an_equal_item_counts_against_the_pair():
    b = torch.ones(4, 2) / 2**0.5
    others = Others.sample(np.arange(4), lambda ids: b[ids])
    partners = Partners(np.array([0]), np.array([0]), others)
    assert among(b[:1], np.array([0]), torch.ones(1), others, partners).rank.tolist() == [4]


def test_a_pair_without_others_is_first_and_nothing_fits_better():
    b = rows(1)
    others = Others.sample(np.arange(1), lambda ids: b[ids])
    found = among(b, np.array([0]), torch.ones(1), others, Partners(*np.zeros((2, 1), int), others))
    assert found.rank.tolist() == [1] and found.best.tolist() == [-1] and not found.beats.any()


def test_paired_scores_are_the_diagonal_and_the_mean_of_both_directions():
    a, b = rows(150), rows(150, seed=1)

    def score(queries, gallery, query, target):
        return (queries @ gallery.T) * (3 if query == "a" else 1)

    torch.testing.assert_close(paired_scores(score, a, b, ("a", "b")), 2 * (a * b).sum(1))


def test_unpaired_items_are_of_no_pair():
    links = np.stack([np.arange(30), np.arange(30) // 2], axis=1)
    drawn = unpaired(links, 400)
    known = {tuple(one) for one in links.tolist()}
    assert 300 < len(drawn) <= 400 and not known & {tuple(one) for one in drawn.tolist()}
    assert len(unpaired(links[:1])) == 0


def test_percentiles_count_what_is_below():
    of = torch.tensor([1.0, 2, 3, 4])
    assert percentiles(torch.tensor([0.0, 2.5, 9]), of).tolist() == [0, 50, 100]
    assert percentiles(torch.tensor([1.0]), of[:0]).isnan().all()


@pytest.fixture(scope="module")
def noisy():
    """400 pairs that are near each other, 40 of which are exchanged."""
    a = rows(400, 16)
    b = normalize(
        a + 0.15 * torch.randn(400, 16, generator=torch.Generator().manual_seed(2)), dim=1
    )
    links = np.stack([np.arange(400)] * 2, axis=1)
    links[:40, 1] = np.roll(links[:40, 1], 1)
    return {"image": a, "text": b}, links


def test_exchanged_pairs_lead_by_least_and_their_share_is_estimated(noisy):
    embeddings, links = noisy
    found = fits(embeddings, links, ("image", "text"))
    wrong = np.arange(400) < 40
    assert roc_auc(-found.lead.numpy(), wrong) > 0.98
    assert found.share == pytest.approx(0.1, abs=0.04)
    assert (found.percentile[wrong] < 80).float().mean() > 0.6


def test_what_fits_better_is_the_partner_that_was_taken_away(noisy):
    embeddings, links = noisy
    better = fits(embeddings, links, ("image", "text")).better
    assert (better[:40, 0].numpy() == np.arange(40)).mean() > 0.8
    assert (better[40:, 0] == -1).float().mean() > 0.7


def test_the_lead_is_the_naive_form(noisy):
    embeddings, links = noisy
    cosines = embeddings["image"] @ embeddings["text"].T
    i, j = links[5]
    masked = cosines.clone()
    masked[links[:, 0], links[:, 1]] = -9
    near = masked[i].topk(10).values.mean() + masked[:, j].topk(10).values.mean()
    found = fits(embeddings, links, ("image", "text"))
    assert float(found.lead[5]) == pytest.approx(float(2 * cosines[i, j] - near), abs=1e-5)
