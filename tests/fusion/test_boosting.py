"""The baseline of gradient boosting."""

import numpy as np
import pytest
import torch

from fusemix_core.data.facts import Fact
from fusemix_core.fuser import Labelled
from fusemix_core.fusion import boosting
from fusemix_core.fusion.boosting import BOOSTING, boosted
from fusemix_core.paired import PairedLatents, ResidentLatents
from fusemix_core.tasks.classify import Classify
from fusemix_core.tasks.ordinal import Ordinal
from fusemix_core.tasks.regress import Regress


def rows(task, fact, present, seed=0):
    """Two modalities of one number each, whose signs together tell the target."""
    count, draw = len(present), np.random.default_rng(seed)
    values = draw.normal(size=(2, count, 1)).astype(np.float32)
    links = torch.where(torch.from_numpy(present), torch.arange(count)[:, None], -1)
    tables = {m: ResidentLatents(torch.from_numpy(v)) for m, v in zip("ab", values, strict=True)}
    same = (values[0, :, 0] > 0) == (values[1, :, 0] > 0)
    learnt, target = task, fact(same)
    if isinstance(task, type):
        learnt = task.learn({"target": target})
    targets = learnt.targets({"target": target})
    return learnt, Labelled(PairedLatents(tables, links), targets, torch.arange(count))


def kinds(same):
    return Fact("class", same.astype(np.int64), ("no", "yes"))


def numbers(same):
    return Fact("number", 5 + 2 * same.astype(np.float32))


@pytest.mark.parametrize(
    ("kind", "fact", "least"), [(Classify, kinds, 0.85), (Regress, numbers, 0.5)]
)
def test_boosting_finds_what_is_not_linear(kind, fact, least):
    both = np.ones((300, 2), bool)
    task, train = rows(kind, fact, both)
    _, test = rows(task, fact, both, seed=1)
    assert task.score(boosted(train, task, 0)(test), test.targets) > least


def test_a_modality_that_is_missing_is_no_number():
    """Its latent can't change the scores, and a class without a training row has some chance."""
    present = np.random.default_rng(2).random((200, 2)) < 0.7
    present[~present.any(axis=1), 0] = True
    task = Classify(classes=["no", "yes", "rare"])
    _, train = rows(task, kinds, present)
    predict = boosted(train, task, 0)
    before = predict(train)
    train.pairs.tables["b"].latents[~train.present[:, 1]] += 100
    assert (predict(train) == before).all() and before.isfinite().all()
    assert task.probabilities(before)[:, 2].max() < 1e-3


def test_other_tasks_and_other_installations_go_without(monkeypatch):
    both = np.ones((60, 2), bool)
    task, train = rows(Ordinal, numbers, both)
    assert boosting.boosting(train, task, 0) == {}
    task, train = rows(Classify, kinds, both)
    assert list(boosting.boosting(train, task, 0)) == [BOOSTING]
    monkeypatch.setattr(boosting.importlib.util, "find_spec", lambda name: None)
    assert boosting.boosting(train, task, 0) == {}
