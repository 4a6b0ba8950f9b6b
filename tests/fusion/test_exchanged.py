"""How much a measure falls if the cells of a column are exchanged."""

import numpy as np
import pytest
import torch

from fusemix_core.config import Part
from fusemix_core.context import FitContext
from fusemix_core.data.facts import Fact
from fusemix_core.fuser import Labelled
from fusemix_core.fusion import exchanged
from fusemix_core.fusion.study import study
from fusemix_core.paired import PairedLatents, ResidentLatents
from fusemix_core.tasks.regress import Regress

NAMES = ("much", "little", "noise")


def encode(modality, cells):
    return torch.tensor([[one.get(name, 0.0) for name in NAMES] for one in cells])


@pytest.fixture(scope="module")
def found():
    """(a study of a table whose columns matter 3, 1 and 0; its items)."""
    draw = np.random.default_rng(0)
    values = draw.normal(size=(240, 3)).astype(np.float32)
    items = [dict(zip(NAMES, map(float, row), strict=True)) for row in values]
    for one in items[::7]:
        del one["noise"]
    fact = Fact("number", (values @ [3, 1, 0]).astype(np.float32))
    task = Regress.learn({"target": fact})
    table = ResidentLatents(encode("table", items))
    pairs = PairedLatents({"table": table}, torch.arange(240)[:, None])
    whole = Labelled(pairs, task.targets({"target": fact}), torch.arange(240))
    parts = [whole.select(torch.arange(a, b)) for a, b in ((0, 140), (140, 160), (160, 240))]
    fold = (task, *parts, np.arange(160, 240))
    return study([fold], {"block": Part("block")}, "block", [FitContext()]), dict(enumerate(items))


def test_a_column_that_matters_more_falls_more(found):
    first, second, last = exchanged.falls(found[0], {"table": found[1]}, encode)
    assert [first.column, second.column, last.column] == list(NAMES)
    assert first.value == pytest.approx(2 * 9 / 10, rel=0.3)  # r2 of a permuted share of variance
    assert first.interval[0] > second.value > 0.05 and abs(last.value) < 0.02
    assert exchanged.falls(found[0], {"table": found[1]}, encode)[0] == first


def test_cells_change_places_and_nothing_else_does(found):
    rows, items = found[0].folds[0].test, found[1]
    other = exchanged.exchanged(rows, "table", "noise", items, encode, np.random.default_rng(1))
    before, after = rows.latents("table"), other.latents("table")
    assert (before[:, :2] == after[:, :2]).all() and (before[:, 2] != after[:, 2]).any()
    assert (before[:, 2].sort().values == after[:, 2].sort().values).all()


def test_tables_of_very_many_columns_are_not_measured(found, monkeypatch):
    monkeypatch.setattr(exchanged, "MOST", 2)
    assert exchanged.falls(found[0], {"table": found[1]}, encode) == []
