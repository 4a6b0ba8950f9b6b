"""First answers and when to trust them, against a loop over queries."""

import numpy as np
import pytest
import torch

from fusemix_core.evaluation.answers import above, answers, precision_curve, threshold
from fusemix_core.evaluation.ranking import rank_direction


def split(seed=0, items=(40, 30), links=60, dim=6, ties=False):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(n, dim, generator=generator) for n in items]
    unit = [r.sign() if ties else torch.nn.functional.normalize(r, dim=1) for r in rows]
    embeddings = dict(zip("ab", unit, strict=True))  # of signs, scores are whole numbers: exact
    table = torch.stack([torch.randint(0, n, (links,), generator=generator) for n in items], dim=1)
    table[:5, 0], table[5:9, 1] = -1, -1
    return embeddings, table


def naive(embeddings, links, query, target):
    """query id → (right, best score, rank of the best partner, partners)."""
    columns = {"a": 0, "b": 1}
    gallery = sorted({int(x) for x in links[:, columns[target]] if x >= 0})
    found = {}
    for item in sorted({int(x) for x in links[:, columns[query]] if x >= 0}):
        partners = {
            int(r[columns[target]])
            for r in links
            if r[columns[query]] == item and r[columns[target]] >= 0
        }
        if not partners:
            continue
        scores = {g: float(embeddings[query][item] @ embeddings[target][g]) for g in gallery}
        best = max(scores[p] for p in partners)
        rank = 1 + sum(scores[g] >= best - 1e-7 for g in gallery if g not in partners)
        found[item] = rank, max(scores.values()), best, partners
    return found


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("max_scores", [1, 97, 1 << 22])
def test_answers_are_those_of_a_loop(ties, max_scores):
    embeddings, links = split(ties=ties)
    for query, target in ("ab", "ba"):
        got = answers(embeddings, links, query, target, max_scores=max_scores)
        want = naive(embeddings, links, query, target)
        assert got.queries.tolist() == list(want)
        for i, (rank, score, best, partners) in enumerate(want.values()):
            assert got.rank[i] == rank
            assert got.score[i] == pytest.approx(score, abs=1e-6)
            assert got.partner_score[i] == pytest.approx(best, abs=1e-6)
            assert int(got.partner[i]) in partners
            assert (int(got.first[i]) in partners) == bool(got.right[i]) == (rank == 1)
        assert got.gallery == len({int(x) for x in links[:, "ab".index(target)] if x >= 0})


def test_ranks_are_those_of_retrieval():
    embeddings, links = split(3)
    for query, target in ("ab", "ba"):
        _, ranks = rank_direction(embeddings, links, query, target)
        assert torch.equal(answers(embeddings, links, query, target).rank, ranks.best + 1)


def test_a_score_that_is_no_number_earns_nothing():
    embeddings, links = split(1)

    def score(a, b, *_):
        return torch.full((len(a), len(b)), torch.nan)

    found = answers(embeddings, links, "a", "b", score)
    assert not found.right.any() and (found.rank == found.gallery).all()
    assert threshold(found) is None


def test_no_links_no_answers():
    embeddings, links = split()
    links[:, 1] = -1
    assert answers(embeddings, links, "a", "b") is None


def sure(count=100, seed=0):
    """Answers of which the surest are right most often."""
    embeddings, _ = split(seed, (count, count), dim=8)
    noise = torch.linspace(0, 1, count)[:, None]
    generator = torch.Generator().manual_seed(seed + 100)
    near = embeddings["a"] + noise * torch.randn(count, 8, generator=generator)
    embeddings["b"] = torch.nn.functional.normalize(near, dim=1)
    links = torch.arange(count)[:, None].expand(-1, 2)
    return embeddings, links


def test_the_threshold_keeps_most_answers_at_its_precision():
    found = answers(*sure(), "a", "b")
    least = threshold(found, 0.9)
    score, right = found.score.double(), found.right.double()
    fits = [
        t for t in score.tolist()
        if (score >= t).sum() >= 20 and right[score >= t].mean() >= 0.9
    ]  # fmt: skip
    assert fits and least == min(fits)
    assert threshold(found, 1.01) is None


def test_what_is_above_a_threshold():
    embeddings, links = sure(seed=1)
    found = answers(embeddings, links, "a", "b")
    sizes = {m: len(rows) for m, rows in embeddings.items()}
    least = float(found.score.min())
    got = above(found, least, links, sizes)
    trusted = found.score >= least
    assert 0 < found.right[trusted].double().mean() < 1
    assert got["share"] == pytest.approx(100 * trusted.double().mean().item())
    assert got["precision"] == pytest.approx(100 * found.right[trusted].double().mean().item())
    low, high = got["precision_interval"]
    assert low <= got["precision"] <= high and high - low > 1
    nothing = above(found, 2.0, links, sizes)
    assert nothing == {"share": 0.0, "precision": None, "precision_interval": None}


def test_the_curve_ends_at_recall_at_1():
    found = answers(*sure(), "a", "b")
    answered, precision = precision_curve(found)
    assert answered[-1] == 100 and precision[-1] == pytest.approx(found.recall(1))
    assert np.all(np.diff(answered) > 0)
