"""What evaluators are given, and what becomes of what they give."""

import numpy as np
import pytest
import torch

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, ContractError
from fusemix_core.evaluation.ranking import cosine
from fusemix_core.evaluation.running import plain_metrics
from fusemix_core.measured import Measured
from fusemix_core.sections import Section, Table, check_section, numbers_of


def measured(labels, links):
    fact = Fact("class", np.array(labels), ("cat", "dog"))
    weight = Fact("number", np.zeros(len(links), np.float32))
    return Measured(
        embeddings={"image": torch.eye(4), "text": torch.eye(4)},
        links=torch.tensor(links),
        score=cosine,
        facts={"kind": fact, "weight": weight},
    )


def test_the_class_of_an_item_is_that_of_all_its_rows():
    links = [[0, 0], [0, 1], [1, 1], [1, 2], [2, -1], [-1, 3]]
    data = measured([0, 0, 0, 1, -1, 1], links)
    # Image 1 has rows of both classes, image 2 one without a class, image 3 no row.
    assert data.class_of("kind", "image").tolist() == [0, -1, -1, -1]
    assert data.class_of("kind", "text").tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("fact", ["weight", "nothing"])
def test_a_fact_without_classes_is_named(fact):
    with pytest.raises(ConfigError, match=fact):
        measured([0], [[0, 0]]).class_of(fact, "image")


def test_other_items_need_a_model():
    with pytest.raises(ConfigError, match="model"):
        measured([0], [[0, 0]]).encode("text", ["a cat"])


def test_numbers_of_numpy_and_torch_are_plain_numbers():
    found = {
        "a": np.float32(0.5),
        1: torch.tensor(3),
        "deep": {"list": (np.int64(2), None, "x", True)},
    }
    plain = plain_metrics("mine", found)
    assert plain == {"a": 0.5, "1": 3, "deep": {"list": [2, None, "x", True]}}
    assert [type(v) for v in plain.values()] == [float, int, dict]


@pytest.mark.parametrize(
    ("found", "at"),
    [
        ({"a": {"b": [1.0, float("inf")]}}, r"inf in a.b\[1\]"),
        ({"a": torch.ones(2)}, "Tensor in a"),
        ({"a": {1, 2}}, "set in a"),
        ([1], "list"),
    ],
)
def test_what_json_cannot_hold_names_evaluator_and_place(found, at):
    with pytest.raises(ContractError, match=f"'mine'.*{at}"):
        plain_metrics("mine", found)


def test_all_numbers_of_nested_metrics_are_in_one_table():
    (table,) = numbers_of({"a": 1, "b": {"c": 2.5, "d": [1, 2], "e": {"f": "x"}}}).tables
    assert table.rows == [["a", 1], ["b.c", 2.5], ["b.e.f", "x"]]


@pytest.mark.parametrize(
    "section",
    [
        "text",
        Section(tables=["table"]),
        Section(tables=[Table(["a", "b"], [["x"]])]),
        Section(tables=[Table(["a"], [["x"]], footer=[1, 2])]),
        Section(tables=[Table(["a"], [[{"x": 1}]])]),
        Section(figures=["figure"]),
        Section(headline=[3]),
    ],
)
def test_a_section_that_cannot_be_shown_is_refused(section):
    with pytest.raises(ContractError, match="mine"):
        check_section("mine", section)
