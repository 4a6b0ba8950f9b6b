"""Optimisers are named by the recipe; what they can't use is told."""

import pytest
import torch

from fusemix_core.config import Part, Training
from fusemix_core.engine.state import make_optimiser, parameter_groups
from fusemix_core.errors import ConfigError


@pytest.mark.parametrize("name", ["adamw", "lion"])
@pytest.mark.parametrize("betas", [[0.9], [0.9, 1.0]])
def test_wrong_betas_are_told(name, betas):
    with pytest.raises(ConfigError, match="betas"):
        make_optimiser([torch.nn.Linear(2, 2)], Training(), Part(name, {"betas": betas}))


def test_what_decays():
    layer = torch.nn.Linear(2, 2)
    matrices, rest = parameter_groups([layer], Training(weight_decay=0.3))
    assert matrices["params"] == [layer.weight] and matrices["weight_decay"] == 0.3
    assert rest["params"] == [layer.bias] and rest["weight_decay"] == 0.0
    every, none = parameter_groups([layer], Training(weight_decay=0.3, decay="all"))
    assert len(every["params"]) == 2 and none["params"] == []


def test_lion_takes_a_step_by_its_closure():
    weight = torch.nn.Parameter(torch.ones(2))
    optimiser = make_optimiser([torch.nn.ParameterList([weight])], Training(lr=0.5), Part("lion"))

    def closure():
        loss = (weight * torch.tensor([1.0, -1.0])).sum()
        loss.backward()
        return loss.item()

    assert optimiser.step(closure) == 0.0
    assert weight[0] < 1.0 < weight[1]
