from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from fusemix_core.errors import ContractError, DataError
from fusemix_core.evaluation.ranking import Positives, cosine, rank
from fusemix_core.evaluation.retrieval import RetrievalEvaluator, retrieval
from fusemix_core.measured import Measured

VECTORS = Path(__file__).parents[1] / "parity" / "fusemix_retrieval" / "vectors.safetensors"


def naive_direction(embeddings, links, query, target, score=cosine):
    """Ranks and average precisions by plain loops over one query at a time."""
    names = list(embeddings)
    q, t = names.index(query), names.index(target)
    rows = [(r[q], r[t]) for r in links.tolist()]
    gallery = sorted({y for _, y in rows if y >= 0})
    partners = {}
    for x, y in rows:
        if x >= 0 and y >= 0:
            partners.setdefault(x, set()).add(y)
    ranks, precisions = [], []
    for x in sorted(partners):
        s = score(embeddings[query][x : x + 1], embeddings[target][gallery], query, target)[0]
        s = dict(zip(gallery, s.tolist(), strict=True))
        # Worst case of ties: every equal negative stands before the positives.
        order = sorted(gallery, key=lambda y: (-s[y], y in partners[x]))
        places = [i for i, y in enumerate(order) if y in partners[x]]
        ranks.append(places[0])
        precisions.append(np.mean([(i + 1) / (p + 1) for i, p in enumerate(places)]))
    return np.array(ranks), np.array(precisions), len(gallery)


def unit(*shape, seed=0, dtype=torch.float32):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return torch.nn.functional.normalize(rows, dim=-1)


def world(seed=0, items=(40, 90), links=120, missing=0.0, dim=6):
    """Random embeddings and a random many-to-many link table."""
    generator = np.random.default_rng(seed)
    table = np.stack([generator.integers(0, n, links) for n in items], axis=1)
    if missing:
        gone = generator.random(links) < missing
        table[gone, generator.integers(0, len(items), gone.sum())] = -1
    names = ["image", "text", "audio"][: len(items)]
    embeddings = {
        m: unit(n, dim, seed=seed + i) for i, (m, n) in enumerate(zip(names, items, strict=True))
    }
    return embeddings, torch.from_numpy(table)


def by_index(similarity):
    """Embeddings and a score that read their scores from a matrix `[n, m]`."""
    n, m = similarity.shape
    embeddings = {"image": torch.arange(n)[:, None].double(), "text": torch.arange(m)[:, None]}
    embeddings["text"] = embeddings["text"].double()

    def score(queries, gallery, query, target):
        i, j = queries[:, 0].long(), gallery[:, 0].long()
        return similarity[i][:, j] if query == "image" else similarity.T[i][:, j]

    return embeddings, score


@pytest.mark.parametrize("max_scores", [1 << 24, 700, 37])
def test_recalls_equal_the_parity_vectors(max_scores):
    vectors = load_file(VECTORS)
    similarity = vectors["retrieval.in.similarity"]
    images = vectors["retrieval.in.caption_to_image"]
    links = torch.stack([images, torch.arange(len(images))], dim=1)
    embeddings, score = by_index(similarity)
    found = retrieval(embeddings, links, score, resamples=0, max_scores=max_scores)
    forward, backward = (found["directions"][d] for d in ("image->text", "text->image"))
    recalls = [d[k] for d in (forward, backward) for k in ("r1", "r5", "r10")]
    assert recalls == pytest.approx(vectors["retrieval.out.recalls"].tolist(), abs=1e-9, rel=0)
    # As counts of queries, to the last one.
    counts = [round(r * n / 100) for r, n in zip(recalls, [30] * 3 + [150] * 3, strict=True)]
    assert counts == [14, 24, 27, 42, 105, 129]
    means = [sum(recalls[:3]) / 3, sum(recalls[3:]) / 3, found["mean_recall"]]
    assert means == pytest.approx(vectors["retrieval.out.means"][:3].tolist(), abs=1e-9, rel=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_scores", [1 << 24, 2000, 50])
def test_ranks_equal_the_naive_form(seed, max_scores):
    embeddings, links = world(seed, missing=0.2)
    found = retrieval(embeddings, links, resamples=0, max_scores=max_scores)
    for name, metrics in found["directions"].items():
        ranks, precisions, gallery = naive_direction(embeddings, links, *name.split("->"))
        assert metrics["queries"] == len(ranks) and metrics["gallery"] == gallery
        for k in (1, 5, 10):
            assert metrics[f"r{k}"] == pytest.approx(100 * np.mean(ranks < k))
        assert metrics["median_rank"] == np.median(ranks) + 1
        assert metrics["map"] == pytest.approx(100 * precisions.mean())
        assert metrics["mrr"] == pytest.approx(100 * np.mean(1 / (ranks + 1)))


def test_many_positives_a_query_take_the_sorting_path():
    generator = np.random.default_rng(0)
    links = torch.from_numpy(
        np.unique(np.stack([generator.integers(0, 5, 400), np.arange(400) % 130], 1), axis=0)
    )
    embeddings = {"image": unit(5, 4), "text": unit(130, 4, seed=1)}
    ranks, precisions, _ = naive_direction(embeddings, links, "image", "text")
    positives = Positives.of(links, 0, 1)
    for max_scores in (1 << 24, 90):
        found = rank(
            embeddings["image"],
            embeddings["text"],
            positives.pairs,
            lambda q, g: q @ g.T,
            max_scores,
        )
        assert found.best.tolist() == ranks.tolist()
        torch.testing.assert_close(found.average_precision, torch.from_numpy(precisions))


@given(st.integers(0, 10**6), st.sampled_from([5, 60, 1 << 20]))
@settings(max_examples=40, deadline=None)
def test_any_score_matrix_with_ties_equals_the_naive_form(seed, max_scores):
    generator = np.random.default_rng(seed)
    n, m = generator.integers(1, 12, 2)
    similarity = torch.from_numpy(generator.integers(0, 4, (n, m)).astype(float))
    links = torch.from_numpy(
        np.stack([generator.integers(0, n, 20), generator.integers(0, m, 20)], 1)
    )
    embeddings, score = by_index(similarity)
    found = retrieval(embeddings, links, score, resamples=0, max_scores=max_scores)
    for name, metrics in found["directions"].items():
        ranks, precisions, _ = naive_direction(embeddings, links, *name.split("->"), score)
        assert metrics["median_rank"] == np.median(ranks) + 1
        assert metrics["r1"] == pytest.approx(100 * np.mean(ranks < 1))
        assert metrics["map"] == pytest.approx(100 * precisions.mean())


def test_constant_embeddings_earn_nothing():
    links = torch.arange(50)[:, None].repeat(1, 2)
    similarity = torch.ones(50, 50)
    embeddings, score = by_index(similarity)
    found = retrieval(embeddings, links, score)
    assert found["mean_r1"] == 0 and found["directions"]["image->text"]["median_rank"] == 50
    same = {m: unit(1, 64).repeat(50, 1) for m in ("image", "text")}
    assert retrieval(same, links)["mean_r1"] <= 2


@pytest.mark.parametrize("where", ["everywhere", "positives", "negatives"])
@pytest.mark.parametrize("max_scores", [1 << 24, 20])
def test_nan_is_never_a_hit(where, max_scores):
    n = 8
    eye = torch.eye(n, dtype=torch.double)
    nan = torch.full_like(eye, torch.nan)
    similarity = {
        "everywhere": nan,
        "positives": torch.where(eye > 0, nan, -eye),
        "negatives": torch.where(eye > 0, eye, nan),
    }[where]
    embeddings, score = by_index(similarity)
    links = torch.arange(n)[:, None].repeat(1, 2)
    found = retrieval(embeddings, links, score, max_scores=max_scores)
    for metrics in found["directions"].values():
        assert metrics["r1"] == metrics["r5"] == 0
        if where != "negatives":
            assert metrics["r10"] == metrics["map"] == metrics["mrr"] == 0


def test_one_positive_with_nan_leaves_the_other():
    similarity = torch.tensor([[torch.nan, 0.9, 0.1]], dtype=torch.double)
    embeddings, score = by_index(similarity)
    links = torch.tensor([[0, 0], [0, 1], [-1, 2]])
    found = retrieval(embeddings, links, score, resamples=0)["directions"]["image->text"]
    assert found["r1"] == 100 and found["map"] == pytest.approx(50)


def test_infinite_scores_are_ranked():
    similarity = torch.tensor([[-torch.inf, 0.0, -torch.inf]], dtype=torch.double)
    embeddings, score = by_index(similarity)
    links = torch.tensor([[0, 0], [-1, 1], [-1, 2]])
    found = retrieval(embeddings, links, score, resamples=0)["directions"]["image->text"]
    assert found["median_rank"] == 3


def test_the_gallery_holds_items_without_partner_and_queries_do_not():
    embeddings = {m: unit(4, 3, seed=i) for i, m in enumerate(("image", "text", "audio"))}
    links = torch.tensor([[0, 0, -1], [1, -1, 2], [-1, 3, 1]])
    found = retrieval(embeddings, links, resamples=0)["directions"]
    assert len(found) == 6
    assert (found["image->text"]["queries"], found["image->text"]["gallery"]) == (1, 2)
    assert (found["text->audio"]["queries"], found["text->audio"]["gallery"]) == (1, 2)


@pytest.mark.parametrize("seed", range(3))
def test_order_of_links_and_numbering_of_items_do_not_matter(seed):
    embeddings, links = world(seed, items=(20, 30, 25), links=60, missing=0.5)
    expected = retrieval(embeddings, links, resamples=50)
    generator = torch.Generator().manual_seed(seed)
    moved, numbered = {}, links[torch.randperm(len(links), generator=generator)]
    for column, (modality, rows) in enumerate(embeddings.items()):
        order = torch.randperm(len(rows), generator=generator)
        moved[modality] = rows[order]
        ids = numbered[:, column]
        numbered[:, column] = torch.where(ids < 0, ids, order.argsort()[ids.clamp(min=0)])
    got = retrieval(moved, numbered, resamples=50)
    for name, metrics in expected["directions"].items():
        for key, value in metrics.items():
            assert got["directions"][name][key] == pytest.approx(value), key
    assert got["mean_r1_interval"] == expected["mean_r1_interval"]


def test_result_is_plain_json_with_its_keys():
    import json

    embeddings, links = world(items=(200, 200, 200), links=150)
    found = retrieval(embeddings, links, resamples=20)
    assert json.loads(json.dumps(found)) == found
    assert set(found) == {
        "mean_r1",
        "mean_r1_interval",
        "mean_recall",
        "directions",
        "pairs",
        "confidence",
        "resamples",
        "seed",
    }
    assert list(found["pairs"]) == ["image-text", "image-audio", "text-audio"]
    assert found["mean_r1"] == pytest.approx(
        np.mean([d["r1"] for d in found["directions"].values()])
    )


def test_evaluator_passes_the_score_and_the_modalities():
    seen = set()

    def score(queries, gallery, query, target):
        seen.add((query, target))
        return -cosine(queries, gallery, query, target)

    embeddings, links = world()
    evaluator = RetrievalEvaluator(resamples=0)
    data = Measured(embeddings=embeddings, links=links, score=score, scorer="reversed")
    found = evaluator(data)
    assert found["scorer"] == "reversed"
    assert found["mean_r1"] != found["cosine"]["mean_r1"]
    assert "cosine" not in evaluator(Measured(embeddings=embeddings, links=links, score=cosine))
    assert seen == {("image", "text"), ("text", "image")}


def test_a_split_without_pairs_and_a_wrong_scorer_are_named():
    embeddings, links = world()
    with pytest.raises(DataError, match="nothing to retrieve"):
        retrieval(embeddings, links[:0])
    with pytest.raises(ContractError, match="scorer"):
        retrieval(embeddings, links, lambda q, g, *_: (q @ g.T)[:, :-1])
