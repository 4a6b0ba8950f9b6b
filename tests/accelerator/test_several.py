"""A step of one of several processes on an emulated GPU: nothing waits for it.

The other process is made up: what it sends is what this one has.
"""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from accelerator.emulated import CUDA
from accelerator.subjects import Steps, names, pairs

from fusemix_core import gathering
from fusemix_core.config import Training
from fusemix_core.engine import feed as feeds
from fusemix_core.engine import gradients
from fusemix_core.engine.feed import feed
from fusemix_core.engine.gradients import Gradients
from fusemix_core.engine.plan import plan_steps
from fusemix_core.mixups.fusemix import FuseMixMixup


class Done:
    def wait(self):
        pass


@pytest.fixture
def join(monkeypatch):
    """Makes this process, and a fit's that has made no step, the first of two."""

    def all_reduce(x, op=dist.ReduceOp.SUM, group=None, async_op=False):
        if op == dist.ReduceOp.SUM:
            x.mul_(2)
        return Done() if async_op else None

    def all_gather(out, x):
        out.copy_(torch.cat([x, x]))

    def reduce_scatter(out, x):
        out.copy_(2 * x[: len(out)])

    def two(steps=None):
        monkeypatch.setattr(gathering, "_all_gather", all_gather)
        monkeypatch.setattr(dist, "all_reduce", all_reduce)
        monkeypatch.setattr(dist, "reduce_scatter_single", reduce_scatter, raising=False)
        monkeypatch.setattr(gradients, "_own_group", lambda: "group")
        monkeypatch.setattr(dist, "is_initialized", lambda: True)
        monkeypatch.setattr(dist, "get_world_size", lambda: 2)
        monkeypatch.setattr(dist, "get_rank", lambda: 0)
        if steps is None:
            return
        fit = steps.state.fit
        trained = [p for m in (*fit.modules.values(), fit.objective) for p in m.parameters()]
        steps.state.gradients = Gradients(p for p in trained if p.requires_grad)
        steps.batches = feed(
            steps.held, steps.plan, 0, steps.device, blocks=False, mixup=steps.mixup
        )
        assert steps.state.gradients.buckets

    return two


@pytest.mark.parametrize(
    "gaps", [pytest.param(False, marks=pytest.mark.long), True], ids=["complete", "gaps"]
)
@pytest.mark.parametrize("name", names("objective"))
def test_a_step_of_several_processes_waits_for_nothing(name, gaps, device, join):
    steps = Steps(CUDA, objective=name, gaps=gaps)
    join(steps)
    steps.step()
    device.clear()
    steps.step()
    assert dict(device.waits) == {}


@pytest.mark.parametrize("blocks", [False, True])
def test_own_rows_of_windows_are_gathered_on_the_gpu(blocks, device, join, monkeypatch):
    monkeypatch.setattr(feeds, "WINDOW_BYTES", 0)
    join()
    data, mixup = pairs(gaps=True), FuseMixMixup()
    plan = plan_steps(len(data), mixup.rows_per_pair, Training(epochs=2, batch_size=6))
    there, here = (
        feed(data, plan, 0, where, blocks=blocks, mixup=mixup)
        for where in (CUDA, torch.device("cpu"))
    )
    for found, wanted in zip(there, here, strict=True):
        assert found.own is not None and len(found.own.rows) < len(found.links)
        found = mixup(found, torch.Generator().manual_seed(0), 0.0)
        wanted = mixup(wanted, torch.Generator().manual_seed(0), 0.0)
        for modality, x in wanted.latents.items():
            assert torch.equal(found.latents[modality].cpu(), x)
