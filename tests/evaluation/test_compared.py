"""A random order and other models beside a model's retrieval."""

from itertools import permutations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from fusemix_core.evaluation.chance import chance
from fusemix_core.evaluation.ranking import Positives, cosine
from fusemix_core.evaluation.retrieval import RetrievalEvaluator
from fusemix_core.measured import Measured


def positives(partners, gallery):
    """Queries with so many partners each, in a gallery of that size."""
    pairs = [[q, g] for q, count in enumerate(partners) for g in range(count)]
    return Positives(torch.arange(len(partners)), torch.arange(gallery), torch.tensor(pairs))


@pytest.mark.parametrize("partners", [[1], [1, 1, 3], [5], [2, 4]])
def test_chance_is_the_mean_over_all_orders_of_the_gallery(partners):
    ranks, precisions = [], []
    for count in partners:
        for order in permutations([True] * count + [False] * (5 - count)):
            places = np.flatnonzero(order) + 1
            ranks.append(places[0])
            precisions.append(np.mean(np.arange(1, count + 1) / places))
    ranks = np.array(ranks)
    found = chance(positives(partners, 5), (1, 2, 10))
    assert found["r1"] == pytest.approx(100 * (ranks <= 1).mean())
    assert found["r2"] == pytest.approx(100 * (ranks <= 2).mean())
    assert found["r10"] == pytest.approx(100)
    assert found["map"] == pytest.approx(100 * np.mean(precisions))
    assert found["mrr"] == pytest.approx(100 * (1 / ranks).mean())
    assert found["median_rank"] == np.sort(ranks)[(len(ranks) - 1) // 2]


def split(noise, count=60, modalities=("image", "text"), **more):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(count, 16, generator=generator)
    rows = {m: base + noise * torch.randn(count, 16, generator=generator) for m in modalities}
    links = torch.arange(count)[:, None].repeat(1, len(modalities))
    embeddings = {m: normalize(r, dim=1) for m, r in rows.items()}
    return Measured(embeddings=embeddings, links=links, score=cosine, **more)


def test_the_difference_to_a_baseline_is_paired_by_query():
    other = split(noise=1.5)
    data = split(noise=1.0, baselines={"itself": split(noise=1.0), "worse": other})
    found = RetrievalEvaluator(200)(data)
    beside = found["baselines"]
    assert list(beside) == ["chance", "itself", "worse"]
    assert beside["itself"]["ahead"] == 0 and beside["itself"]["ahead_interval"] == [0, 0]
    alone = RetrievalEvaluator(200)(other)
    assert beside["worse"]["mean_r1"] == pytest.approx(alone["mean_r1"])
    assert beside["worse"]["ahead"] == pytest.approx(found["mean_r1"] - alone["mean_r1"])
    low, high = beside["worse"]["ahead_interval"]
    assert 0 < low < beside["worse"]["ahead"] < high
    one = beside["worse"]["directions"]["text->image"]
    assert one["r5"] == alone["directions"]["text->image"]["r5"] and one["ahead"] > 0
    assert beside["chance"]["mean_r1"] == pytest.approx(100 / 60)
    shown = RetrievalEvaluator(200).sections(found, data)[0].tables[1].caption
    assert shown.endswith(". Ahead of chance and worse; not shown to be ahead of itself")
    found["baselines"]["itself"]["ahead_interval"] = [-3.0, -1.0]
    shown = RetrievalEvaluator(200).sections(found, data)[0].tables[1].caption
    assert shown.endswith(". Ahead of chance and worse; behind itself")


def test_a_baseline_that_lacks_a_modality_is_compared_in_the_directions_that_it_has():
    data = split(noise=1.0, modalities=("image", "text", "audio"))
    two = split(noise=1.0)
    data = split(noise=1.0, modalities=("image", "text", "audio"), baselines={"two": two})
    beside = RetrievalEvaluator(20)(data)["baselines"]["two"]
    assert set(beside["directions"]) == {"image->text", "text->image"}
    assert beside["ahead"] == 0
