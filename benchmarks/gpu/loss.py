"""Exact InfoNCE, forward and backward, at the batches of large runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch.nn.functional import normalize

from benchmarks.gpu.case import Case, Jobs, against
from benchmarks.gpu.forms import FLOAT32, HALF, TF32, Form
from benchmarks.harness import Row
from fusemix_core.adapters.identity import IdentityAdapter
from fusemix_core.aligners.alignment import Alignment
from fusemix_core.interfaces import Batch
from fusemix_core.objectives.infonce import InfoNCE

WIDTH = 512
FORMS = {
    20_480: (FLOAT32, TF32, HALF),
    65_536: (TF32, HALF),
    262_144: (HALF,),
    1_048_576: (HALF,),
}
"""By batch. A million in float32 would take longer than all other figures together."""
GOALS = {65_536: (30.0, 1.0), 1_048_576: (8_000.0, 12.0)}
"""In half precision, by batch: ms and GB."""


def jobs(case: Case) -> Jobs:
    for batch, forms in ({256: FORMS[20_480]} if case.quick else FORMS).items():
        for form in forms:
            yield f"{form.name}, B = {batch:,}", partial(measured, case, batch, form)


def measured(case: Case, batch: int, form: Form) -> Iterable[Row]:
    """The objective on embeddings of `WIDTH`, with the gradients of these and the temperature."""
    run = loss_of(case.device, batch, form)
    found = case.timed(run, 5 if batch < 100_000 else 1, int(batch < 500_000))
    ms, gb = GOALS.get(batch, (None, None)) if form is HALF else (None, None)
    rate = 8 * batch**2 * WIDTH / found.seconds / 1e12
    details = {"batch": batch, "tflops_of_four_products": rate}
    name = f"InfoNCE, {batch:,} pairs, {form.name}"
    yield against(name, found.ms, "ms", ms, details)
    yield against(f"{name}, peak memory", found.peak_gb, "GB", gb, details)


def loss_of(device: torch.device, batch: int, form: Form) -> Callable[[], None]:
    """What takes one loss and its gradients, of a fit of nothing but the objective."""
    torch.manual_seed(0)
    x = normalize(torch.randn(batch, WIDTH, device=device), dim=1)
    y = normalize(x + 0.06 * torch.randn(batch, WIDTH, device=device), dim=1)
    links = torch.arange(batch, device=device)[:, None, None].expand(batch, 1, 2)
    given = Batch({"image": x.requires_grad_(), "text": y.requires_grad_()}, links)
    adapters = {m: IdentityAdapter(WIDTH, WIDTH) for m in given.latents}
    fit = Alignment(adapters, InfoNCE().to(device))
    fit.precision = form.on(device)

    def run() -> None:
        for leaf in (x, y, fit.objective.temperature):
            leaf.grad = None
        with fit.precision.step():
            fit.loss(fit.step(given)).backward()

    return run
