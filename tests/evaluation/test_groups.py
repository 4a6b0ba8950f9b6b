"""Recall by the values of a column, against a loop."""

import json

import numpy as np
import pytest
import torch

from fusemix_core.data.facts import Fact
from fusemix_core.errors import DataError, UnknownNameError
from fusemix_core.evaluation.answers import answers
from fusemix_core.evaluation.groups import SHOWN, GroupsEvaluator
from fusemix_core.evaluation.ranking import cosine
from fusemix_core.measured import Measured


def measured(values=3, rows=90, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeddings = {
        m: torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=1)
        for m, n in (("image", 60), ("text", 50))
    }
    links = torch.stack(
        [torch.randint(0, n, (rows,), generator=generator) for n in (60, 50)], dim=1
    )
    links[:6, 0], links[6:10, 1] = -1, -1
    scanner = np.random.default_rng(seed).integers(-1, values, rows)
    facts = {
        "scanner": Fact("class", scanner, tuple(f"S{i}" for i in range(values))),
        "age": Fact("number", np.zeros(rows, np.float32)),
    }
    return Measured(embeddings=embeddings, links=links, score=cosine, facts=facts)


def test_recall_of_each_value_is_that_of_a_loop():
    data = measured()
    found = GroupsEvaluator()(data)
    json.dumps(found, allow_nan=False)
    for query, target, column in (("image", "text", 0), ("text", "image", 1)):
        one = answers(data.embeddings, data.links, query, target)
        rank = dict(zip(one.queries.tolist(), one.rank.tolist(), strict=True))
        table = found["scanner"][f"{query}->{target}"]
        for i, name in enumerate(data.facts["scanner"].names):
            own = {
                int(link[column])
                for link, value in zip(data.links, data.facts["scanner"].values, strict=True)
                if value == i and (link >= 0).all()
            }
            assert table[name]["queries"] == len(own)
            for k in (1, 10):
                want = 100 * np.mean([rank[item] <= k for item in own])
                assert table[name][f"r{k}"] == pytest.approx(want)
            low, high = table[name]["r1_interval"]
            assert low <= table[name]["r1"] <= high


def test_one_value_has_the_recall_of_all():
    data = measured(values=1)
    data.facts["scanner"].values[:] = 0
    table = GroupsEvaluator("scanner", resamples=0)(data)["scanner"]["image->text"]
    one = answers(data.embeddings, data.links, "image", "text")
    assert table["S0"]["queries"] == len(one.queries)
    assert table["S0"]["r1"] == pytest.approx(one.recall(1))
    assert table["S0"]["r1_interval"] is None


def test_the_report_shows_the_values_with_most_queries():
    data = measured(values=40, rows=400)
    evaluator = GroupsEvaluator()
    (section,) = evaluator.sections(evaluator(data), data)
    counts = [row[1] for row in section.tables[0].rows]
    assert section.title == "By scanner" and len(counts) == SHOWN
    assert counts == sorted(counts, reverse=True) and "10 more values" in section.tables[0].caption


def test_a_fact_that_is_no_class_is_an_error():
    with pytest.raises(UnknownNameError, match="age"):
        GroupsEvaluator("age")(measured())
    data = measured()
    del data.facts["scanner"]
    with pytest.raises(DataError, match="No fact has classes") as raised:
        GroupsEvaluator()(data)
    assert "--by COLUMN" in raised.value.hint
