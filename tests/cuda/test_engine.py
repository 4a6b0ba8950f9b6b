"""The engine on a GPU: where batches are, what a step computes, stopped and resumed fits."""

from dataclasses import replace

import pytest
import torch

from fusemix_core.adapters.mlp import MlpAdapter
from fusemix_core.aligners.alignment import Alignment
from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.engine.compiling import Compiling
from fusemix_core.engine.feed import feed
from fusemix_core.engine.plan import Plan, plan_steps
from fusemix_core.engine.state import TrainState, train_step
from fusemix_core.evaluation.retrieval import retrieval
from fusemix_core.interfaces import Callback, FitContext, PairedLatents
from fusemix_core.numerics import Precision
from fusemix_core.registry import registry

pytestmark = pytest.mark.cuda
OBJECTIVES = sorted(
    {
        spec.name
        for _, spec in registry.all_components("objective")
        if not set(spec.uses) - {"latents"} and not spec.wraps
    }
)
"""Those that read nothing but embeddings and latents."""
RECIPE = Recipe(
    "small",
    Part("gradient"),
    dim=16,
    adapter=Part("mlp", {"blocks": 1, "dropout": 0.3}),
    mixup=Part("fusemix"),
    objective=Part("infonce"),
    training=Training(epochs=4, batch_size=16, lr=1e-3, ema=0.9, clip_norm=1.0),
)


def batches_of(pairs, device, blocks, count=12):
    plan = plan_steps(len(pairs), 2, Training(epochs=4, batch_size=32))
    batches = feed(pairs, plan, 3, device, blocks=blocks)
    try:
        for _ in range(count):
            yield next(batches)
    finally:
        batches.close()


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("resident", [False, True])
def test_batches_are_on_the_device_and_those_of_a_cpu(device, pairs, on, blocks, resident):
    data = pairs(400, missing=0.2)
    there = batches_of(on(device, data) if resident else data, device, blocks)
    for batch, wanted in zip(there, batches_of(data, torch.device("cpu"), blocks), strict=True):
        assert batch.links.device == device
        assert torch.equal(batch.links.cpu(), wanted.links)
        for modality, rows in batch.latents.items():
            assert rows.device == device
            assert torch.equal(rows.cpu(), wanted.latents[modality])


def test_a_batch_keeps_its_rows_while_those_after_it_are_made(device, pairs):
    """A buffer that is used again too early would change a batch that its user still has."""
    data = pairs(400)
    held, copies = [], []
    for batch in batches_of(data, device, blocks=True):
        held.append(batch)
        copies.append({m: rows.clone() for m, rows in batch.latents.items()})
    for batch, copy in zip(held, copies, strict=True):
        assert all(torch.equal(batch.latents[m], rows) for m, rows in copy.items())


def stepped(objective, device, data):
    """Loss and weights after a step without dropout."""
    torch.manual_seed(0)
    adapters = {m: registry.build("adapter", Part("mlp"), d, 16) for m, d in data.dims.items()}
    fit = Alignment(adapters, registry.build("objective", Part(objective)))
    for module in (*adapters.values(), fit.objective):
        module.to(device).eval()
    state = TrainState.new(fit, Training(), seed=0)
    batch = data.batch(torch.arange(48), device)
    found = train_step(state, batch, registry.build("mixup", Part("none")), 1e-3)
    parameters = [p for adapter in adapters.values() for p in adapter.parameters()]
    return float(found["loss"]), parameters


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_is_that_of_a_cpu(device, pairs, objective, missing):
    data = pairs(100, missing)
    loss, parameters = stepped(objective, device, data)
    wanted, others = stepped(objective, torch.device("cpu"), data)
    assert loss == pytest.approx(wanted, rel=1e-4)
    for parameter, other in zip(parameters, others, strict=True):
        assert parameter.device == device and parameter.grad.device == device
        torch.testing.assert_close(parameter.grad.cpu(), other.grad, rtol=1e-3, atol=1e-5)


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_step(self, step, metrics):
        if step == self.step:
            raise RuntimeError("power cut")


def test_a_fit_that_was_stopped_and_resumed_is_one_that_was_not(device, pairs, tmp_path):
    data, held_out = pairs(200), pairs(60)

    def fit(folder, resume=False, callbacks=()):
        context = FitContext(device, 3, tmp_path / folder, resume, callbacks)
        return GradientAligner().fit(data, held_out, RECIPE, context)

    whole = fit("whole")
    with pytest.raises(RuntimeError, match="power cut"):
        fit("parts", callbacks=[StopAt(15)])
    resumed = fit("parts", resume=True)
    for modality, adapter in whole.items():
        for name, value in adapter.state_dict().items():
            assert value.device.type == "cpu"
            other = resumed[modality].state_dict()[name]
            torch.testing.assert_close(other, value, rtol=1e-4, atol=1e-5)


def test_a_fit_finds_as_much_as_on_a_cpu(device, pairs):
    data, held_out = pairs(300), pairs(120)
    recipe = replace(RECIPE, training=replace(RECIPE.training, epochs=6, ema=0.0))

    def recall(where):
        adapters = GradientAligner().fit(data, held_out, recipe, FitContext(where))
        embeddings = {
            m: torch.nn.functional.normalize(a(held_out.tables[m].rows(torch.arange(120))), dim=1)
            for m, a in adapters.items()
        }
        return retrieval(embeddings, held_out.links, resamples=0)["mean_recall"]

    assert recall(device) > recall(torch.device("cpu")) - 5


@pytest.mark.parametrize("max_scores", [1 << 10, 1 << 22])
def test_metrics_are_those_of_a_cpu(device, max_scores):
    draw = torch.Generator().manual_seed(0)
    first = torch.nn.functional.normalize(torch.randn(150, 8, generator=draw), dim=1)
    second = first + 0.3 * torch.randn(150, 8, generator=draw)
    embeddings = {"image": first, "text": torch.nn.functional.normalize(second, dim=1)}
    links = torch.arange(150)[:, None].repeat(1, 2)
    there = retrieval(embeddings, links, resamples=50, device=device, max_scores=max_scores)
    assert there == retrieval(embeddings, links, resamples=50, max_scores=max_scores)


def test_tables_on_the_device_give_what_they_gave_in_memory(device, pairs, on):
    data = pairs(50)
    moved: PairedLatents = on(device, data)
    for modality, table in data.tables.items():
        ids = torch.tensor([3, 3, 49, 0])
        assert torch.equal(moved.tables[modality].rows(ids).cpu(), table.rows(ids))


def test_adapters_of_small_batches_are_cuda_graphs(device):
    torch.manual_seed(0)
    adapter, notes = MlpAdapter(64, 32, blocks=2).to(device), []
    plan = Plan(Training(batch_size=16), 16, 1)
    backend = "inductor" if device.type == "cuda" else "eager"
    forms = Compiling({"text": adapter}, {"text": 64}, plan, Precision(), notes.append, backend)
    assert notes == [] and forms.graphs is (device.type == "cuda") and len(forms.forms) == 1
    kept = []
    for _ in range(5):
        latents = torch.randn(16, 64, device=device)
        with forms.steps():
            found = adapter(latents)
        found.square().sum().backward()
        gradients = [p.grad.clone() for p in adapter.parameters()]
        adapter.zero_grad(set_to_none=True)
        wanted = adapter(latents)
        wanted.square().sum().backward()
        kept.append((found, wanted.detach()))
        for p, gradient in zip(adapter.parameters(), gradients, strict=True):
            torch.testing.assert_close(gradient, p.grad, rtol=1e-3, atol=1e-4)
        adapter.zero_grad(set_to_none=True)
    for found, wanted in kept:  # later steps did not write over earlier ones
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
