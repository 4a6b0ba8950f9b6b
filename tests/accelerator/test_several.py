"""A step of one of several processes on an emulated GPU: nothing waits for it.

The other process is made up: what it sends is what this one has.
"""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from accelerator.emulated import CUDA
from accelerator.subjects import Steps, names

from fusemix_core import gathering
from fusemix_core.engine import gradients
from fusemix_core.engine.feed import feed
from fusemix_core.engine.gradients import Gradients


class Done:
    def wait(self):
        pass


@pytest.fixture
def join(monkeypatch):
    """Makes a fit's process the first of two, before its first step."""

    def all_reduce(x, op=dist.ReduceOp.SUM, group=None, async_op=False):
        if op == dist.ReduceOp.SUM:
            x.mul_(2)
        return Done() if async_op else None

    def all_gather(out, x):
        out.copy_(torch.cat([x, x]))

    def reduce_scatter(out, x):
        out.copy_(2 * x[: len(out)])

    def two(steps):
        monkeypatch.setattr(gathering, "_all_gather", all_gather)
        monkeypatch.setattr(dist, "all_reduce", all_reduce)
        monkeypatch.setattr(dist, "reduce_scatter_single", reduce_scatter, raising=False)
        monkeypatch.setattr(gradients, "_own_group", lambda: "group")
        monkeypatch.setattr(dist, "is_initialized", lambda: True)
        monkeypatch.setattr(dist, "get_world_size", lambda: 2)
        monkeypatch.setattr(dist, "get_rank", lambda: 0)
        fit = steps.state.fit
        trained = [p for m in (*fit.modules.values(), fit.objective) for p in m.parameters()]
        steps.state.gradients = Gradients(p for p in trained if p.requires_grad)
        steps.batches = feed(
            steps.held, steps.plan, 0, steps.device, blocks=False, mixup=steps.mixup
        )
        assert steps.state.gradients.buckets

    return two


@pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gaps"])
@pytest.mark.parametrize("name", names("objective"))
def test_a_step_of_several_processes_waits_for_nothing(name, gaps, device, join):
    steps = Steps(CUDA, objective=name, gaps=gaps)
    join(steps)
    steps.step()
    device.clear()
    steps.step()
    assert dict(device.waits) == {}
