"""Columns that give the target away are found, and honest ones are not."""

import numpy as np
import pytest

from fusemix_core.data.facts import Fact
from fusemix_core.data.leaks import leaks
from fusemix_core.data.reading import pairs_from
from fusemix_core.runs.leaks import find_leaks

N = 120
DRAW = np.random.default_rng(0)
CLASS = np.arange(N) % 3
BINARY = Fact("class", CLASS // 2, ("no", "yes"))
THREE = Fact("class", CLASS, ("a", "b", "c"))
VALUE = DRAW.normal(10, 3, N)
NUMBER = Fact("number", VALUE.astype(np.float32))


def table(**columns):
    return [
        {name: cell for name, cell in zip(columns, cells, strict=True) if cell is not None}
        for cells in zip(*columns.values(), strict=True)
    ]


NOISE = {
    "noise": DRAW.normal(size=N).tolist(),
    "ward": DRAW.choice(list("abcdef"), N).tolist(),
    "many": [f"v{i}" for i in DRAW.integers(0, 40, N)],
    "name": [f"n{i}" for i in range(N)],
}


@pytest.mark.parametrize("target", [BINARY, THREE, NUMBER], ids=["two", "three", "number"])
def test_columns_of_noise_are_no_leaks(target):
    assert leaks(table(**NOISE), target) == []


@pytest.mark.parametrize(
    ("target", "column", "why"),
    [
        (BINARY, (DRAW.normal(size=N) - 9 * BINARY.values).tolist(), "AUC of 1.000"),
        (BINARY, ["dead" if v else "alive" for v in BINARY.values], "each of its 2 values"),
        (BINARY, ["2024-01-01" if v else None for v in BINARY.values], "filled for one class only"),
        (THREE, [f"grade {v}" for v in CLASS], "each of its 3 values is of one class"),
        (
            THREE,
            (CLASS * [1, 5, 3][0] % 3 + DRAW.uniform(0, 0.1, N)).tolist(),
            "rows of like values",
        ),
        (NUMBER, (-(VALUE**3)).tolist(), "Spearman correlation of 1.000"),
        (NUMBER, (VALUE + DRAW.normal(0, 0.75, N)).tolist(), "may contain the target"),
    ],
    ids=["auc", "category", "filled", "category of three", "neighbours", "ranks", "variance"],
)
def test_a_column_that_gives_the_target_away_is_named_with_the_remedy(target, column, why):
    (found,) = leaks(table(**NOISE, outcome=column), target)
    assert "'outcome'" in found and why in found and "--drop 'table=outcome'" in found


def test_a_column_named_like_the_target_is_suspicious_sooner():
    columns = {"guess of log solubility in mols": (VALUE + DRAW.normal(0, 1.5, N)).tolist()}
    assert leaks(table(**columns), NUMBER) == []
    (found,) = leaks(table(**columns), NUMBER, name="measured log solubility in mols per litre")
    assert "it is named like it" in found
    predicted = table(predicted=next(iter(columns.values())))
    assert len(leaks(predicted, NUMBER)) == 1


def test_a_category_is_not_judged_by_the_rows_of_its_own_group():
    patients = np.arange(N) // 4
    target = Fact("class", patients % 2, ("no", "yes"))
    items = table(patient=[f"p{p}" for p in patients])
    assert len(leaks(items, target)) == 1
    assert leaks(items, target, patients) == []


def test_few_rows_and_unknown_targets_tell_nothing():
    items = table(outcome=CLASS.tolist())
    assert leaks(items[:20], THREE.select(np.arange(20))) == []
    unknown = Fact("class", np.where(np.arange(N) < 100, -1, CLASS), THREE.names)
    assert leaks(items, unknown) == []
    assert leaks([None] * N, THREE) == []
    assert len(leaks([None, *items[1:]], THREE)) == 1


def test_huge_and_constant_numbers_are_judged_without_overflow():
    huge = (VALUE * 1e300).tolist()
    (found,) = leaks(table(huge=huge, same=[1.0] * N), NUMBER)
    assert "'huge'" in found
    assert leaks(table(x=huge), Fact("number", np.ones(N, np.float32))) == []


# -- of a dataset ----------------------------------------------------------------------------------


def dataset(held=(), **columns):
    split = ["test" if i in held else "train" for i in range(N)]
    values = {"text": [f"t{i}" for i in range(N)], "table": table(**columns)}
    takes = {"text": "text", "table": "table"}
    facts = {"target:class": [f"k{c}" for c in CLASS]}
    return pairs_from(values, takes, split=split, facts=facts)


def test_leaks_are_looked_for_in_training_rows_only():
    given = [f"grade {v}" if i < 100 else "unknown" for i, v in enumerate(CLASS)]
    assert find_leaks(dataset(noise=NOISE["noise"], given=given), "target") == []
    (found,) = find_leaks(dataset(range(100, N), noise=NOISE["noise"], given=given), "target")
    assert "'given'" in found
    patients = np.arange(N)
    assert len(find_leaks(dataset(range(100, N), given=given), "target", groups=patients)) == 1


def test_rows_that_are_in_two_splits_are_reported():
    same = {f"c{j}": [float((i * 7 + j) % 60) for i in range(N)] for j in range(6)}
    (found,) = find_leaks(dataset(range(100, N), **same), "target")
    assert "20 of 20 test rows have the same table as a training row" in found
    assert "--group-by" in found
    narrow = dict(list(same.items())[:3])
    assert find_leaks(dataset(range(100, N), **narrow), "target") == []
