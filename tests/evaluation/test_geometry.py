import json
from itertools import combinations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from fusemix_core.errors import DataError
from fusemix_core.evaluation import geometry as module
from fusemix_core.evaluation.geometry import geometry, uniformity


def rows(n, d=5, seed=0):
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=-1)


def split(seed=0):
    generator = np.random.default_rng(seed)
    links = np.stack([generator.integers(0, 30, 50), generator.integers(0, 40, 50)], 1)
    links[:4, 0] = -1
    links[4:7, 1] = -1
    return {"image": rows(30, seed=seed), "text": rows(40, seed=seed + 1)}, torch.from_numpy(links)


def naive_uniformity(x):
    terms = [np.exp(-2 * np.sum((a - b) ** 2)) for a, b in combinations(x, 2)]
    return np.log(np.mean(terms))


@pytest.mark.parametrize("seed", range(3))
def test_geometry_equals_the_naive_form(seed, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 7)
    embeddings, links = split(seed)
    found = geometry(embeddings, links, bins=20)
    x, y = (e.double().numpy() for e in embeddings.values())
    pairs = sorted({(i, j) for i, j in links.tolist() if i >= 0 and j >= 0})
    left, right = sorted({i for i, _ in pairs}), sorted({j for _, j in pairs})
    others = [(i, j) for i in left for j in right if (i, j) not in pairs]
    cosines = [[x[i] @ y[j] for i, j in p] for p in (pairs, others)]
    got = found["pairs"]["image-text"]
    assert got["pairs"] == len(pairs)
    assert got["gap"] == pytest.approx(np.linalg.norm(x[left].mean(0) - y[right].mean(0)))
    assert got["alignment"] == pytest.approx(
        np.mean([np.sum((x[i] - y[j]) ** 2) for i, j in pairs])
    )
    assert got["positive_cosine"] == pytest.approx(np.mean(cosines[0]))
    assert got["negative_cosine"] == pytest.approx(np.mean(cosines[1]))
    edges = np.linspace(-1, 1, 21)
    assert got["histogram"]["pairs"] == np.histogram(cosines[0], edges)[0].tolist()
    assert got["histogram"]["non_pairs"] == np.histogram(cosines[1], edges)[0].tolist()
    linked = {
        m: sorted({i for i in links[:, k].tolist() if i >= 0}) for k, m in enumerate(embeddings)
    }
    assert found["uniformity"]["image"] == pytest.approx(naive_uniformity(x[linked["image"]]))
    assert found["uniformity"]["text"] == pytest.approx(naive_uniformity(y[linked["text"]]))
    assert json.loads(json.dumps(found)) == found


def test_uniformity_of_equal_rows_is_zero_and_of_one_row_unknown():
    assert uniformity(rows(1).repeat(9, 1).double()) == pytest.approx(0)
    assert uniformity(rows(1)) is None


def test_order_of_links_does_not_matter():
    embeddings, links = split()
    order = torch.randperm(len(links), generator=torch.Generator().manual_seed(0))
    assert geometry(embeddings, links) == geometry(embeddings, links[order])


def test_a_sample_repeats_and_is_close_to_the_whole():
    embeddings = {"image": rows(900), "text": rows(900, seed=1)}
    links = torch.arange(900)[:, None].repeat(1, 2)
    whole, part = geometry(embeddings, links), geometry(embeddings, links, sample=200)
    assert part == geometry(embeddings, links, sample=200)
    assert part["uniformity"]["image"] == pytest.approx(whole["uniformity"]["image"], abs=0.05)
    histogram = part["pairs"]["image-text"]["histogram"]
    assert sum(histogram["pairs"]) == 900
    assert 200 * 200 - 200 <= sum(histogram["non_pairs"]) <= 200 * 200


def test_three_modalities_and_an_empty_split():
    embeddings = {m: rows(10, seed=i) for i, m in enumerate("abc")}
    links = torch.tensor([[0, 1, -1], [2, -1, 3], [3, -1, 4]])
    found = geometry(embeddings, links)
    assert list(found["pairs"]) == ["a-b", "a-c"]
    assert found["uniformity"]["b"] is None
    with pytest.raises(DataError, match="can't be measured"):
        geometry(embeddings, links[:0])
