"""Which task is chosen for a target, and why."""

import numpy as np
import pytest

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.tasks.choose import FEW, check_groups, choose_task

DRAW = np.random.default_rng(0)
TWO = Fact("class", np.array([0, 1, -1] * 10), ("ill", "well"))
FLAG = Fact("number", np.array([0, 1, np.nan], np.float32))


def number(values):
    return Fact("number", np.array(values, np.float32))


@pytest.mark.parametrize(
    ("fact", "task", "reason"),
    [
        (TWO, "classify", "two values, 'ill', 'well'"),
        (Fact("class", np.arange(30) % 3, ("a", "b", "c")), "classify", "3 classes"),
        (Fact("text", np.arange(30) % 3, ("a", "b", "c")), "classify", "3 classes"),
        (FLAG, "classify", "2 different values"),
        (number([0.5, 1.5, 0.5]), "classify", "2 different values"),
        (number(np.arange(100) % FEW), "classify", "10 different whole numbers; --task ordinal"),
        (number(np.arange(100) % (FEW + 1)), "regress", "11 different whole numbers; --task class"),
        (number(np.arange(500)), "regress", "500 different whole numbers"),
        (number(np.arange(14) % 5), "regress", "5 different whole numbers"),
        (number(np.arange(15) % 5), "classify", "5 different whole numbers"),
        (number(DRAW.normal(size=50)), "regress", "50 different numbers"),
        (number([0.1, 0.2, 0.3]), "regress", "3 different numbers"),
    ],
)
def test_the_kind_and_the_number_of_values_decide(fact, task, reason):
    found, why = choose_task({"target": fact})
    assert found == task and reason in why


def test_times_and_events_are_survival_and_several_columns_labels():
    assert choose_task({"time": number([1, 2]), "event": FLAG})[0] == "survive"
    found, why = choose_task({"a": FLAG, "b": TWO, "c": FLAG})
    assert found == "multilabel" and "3 target columns" in why
    with pytest.raises(ConfigError, match="'b' has more"):
        choose_task({"a": FLAG, "b": number([1, 2, 3])})


def test_boxes_are_boxes_to_find():
    assert choose_task({"target": Fact("box", np.zeros((2, 4), np.float32))})[0] == "box"


def test_the_users_choice_stays():
    assert choose_task({"target": number([1, 2, 3])}, "ordinal")[0] == "ordinal"


@pytest.mark.parametrize(
    ("fact", "message"),
    [
        (Fact("text", np.arange(30), tuple(f"t{i}" for i in range(30))), "30 different texts"),
        (Fact("time", np.zeros(2)), "dates"),
        (number([np.nan, np.nan]), "missing in all 2"),
    ],
)
def test_a_target_that_no_task_predicts_is_an_error_with_a_remedy(fact, message):
    with pytest.raises(DataError, match=message) as caught:
        choose_task({"target": fact})
    assert "--t" in caught.value.hint


def test_groups_that_part_nothing_are_an_error():
    with pytest.raises(DataError, match="All 3 rows have the patient 'p'") as caught:
        check_groups(Fact("class", np.zeros(3, int), ("p",)), "patient")
    assert "--group-by" in caught.value.hint
    check_groups(Fact("class", np.array([0, 0, -1]), ("p",)))
    check_groups(TWO)
