"""The numbers that a fit trains in: what is rounded, and what never is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fusemix_core.adapters.kernel import KernelAdapter
from fusemix_core.adapters.mlp import MlpAdapter
from fusemix_core.adapters.rows import embed_rows
from fusemix_core.aligners.alignment import Alignment
from fusemix_core.aligners.cca import CCAAligner
from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.engine import checkpoint, loop
from fusemix_core.engine.precision import precision_of
from fusemix_core.engine.state import TrainState, train_step
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.evaluation.ranking import cosine, rank
from fusemix_core.interfaces import Batch, Callback, FitContext, Objective, ResidentLatents
from fusemix_core.mixups.none import NoMixup
from fusemix_core.numerics import Precision, exact
from fusemix_core.objectives.infonce import InfoNCE

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
HALF, TF32 = Precision("half"), Precision("tf32")


def capability(monkeypatch, *version):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: version)


@pytest.mark.parametrize(
    ("version", "wanted"), [((9, 0), "half"), ((8, 0), "half"), ((7, 5), "float32")]
)
def test_auto_is_half_where_a_gpu_is_fast_in_it(monkeypatch, version, wanted):
    capability(monkeypatch, *version)
    assert precision_of("auto", CUDA) == Precision(wanted, "cuda")


def test_auto_is_float32_on_other_devices():
    for kind in ("cpu", "mps"):
        assert precision_of("auto", torch.device(kind)).name == "float32"


@pytest.mark.parametrize(
    ("name", "device"), [("tf32", CPU), ("tf32", torch.device("mps")), ("half", CUDA)]
)
def test_numbers_that_a_device_has_not_are_refused(monkeypatch, name, device):
    capability(monkeypatch, 7, 5)
    with pytest.raises(ConfigError, match=f"precision is {name}") as error:
        precision_of(name, device)
    assert "training.precision=auto" in error.value.hint


def one_step(precision):
    """(loss, gradients as one vector, state) of the first step of two adapters with norms."""
    torch.manual_seed(0)
    cause = torch.randn(96, 24)
    latents = {m: cause @ torch.randn(24, 40) + torch.randn(96, 40) for m in ("image", "text")}
    adapters = {m: MlpAdapter(40, 32, blocks=2) for m in latents}
    fit = Alignment(adapters, InfoNCE())
    fit.precision = precision
    state = TrainState.new(fit, Training(), 0)
    links = torch.arange(96)[:, None, None].repeat(1, 1, 2)
    with precision.step():
        metrics = train_step(state, Batch(latents, links), NoMixup(), lr=1e-3)
    parameters = [p for m in (*adapters.values(), fit.objective) for p in m.parameters()]
    return float(metrics["loss"]), torch.cat([p.grad.flatten() for p in parameters]), state


def test_a_step_in_half_is_near_one_in_float32():
    loss, gradient, _ = one_step(Precision())
    near, half, _ = one_step(HALF)
    assert near != loss
    assert near == pytest.approx(loss, rel=1e-3)
    assert (half - gradient).norm() < 1e-2 * gradient.norm()
    assert torch.cosine_similarity(half, gradient, dim=0) > 0.9999


def test_weights_gradients_and_optimiser_stay_float32():
    _, gradient, state = one_step(HALF)
    held = [v for values in state.optimiser.state.values() for v in values.values()]
    weights = [v for m in state.fit.modules.values() for v in m.state_dict().values()]
    assert {x.dtype for x in (gradient, *held, *weights)} == {torch.float32}


class Tf32(TorchDispatchMode):
    """A GPU that rounds what it multiplies to ten bits where it may."""

    rounded = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        products = function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm)
        if products and torch.get_float32_matmul_precision() == "high":
            self.rounded += 1
            args = [*args[:-2], ten_bits(args[-2]), ten_bits(args[-1])]
        return function(*args, **(kwargs or {}))


def ten_bits(x):
    bits = x.contiguous().view(torch.int32)
    return ((bits + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32).view_as(x)


def test_a_step_in_tf32_is_near_one_in_float32():
    loss, gradient, _ = one_step(Precision())
    with Tf32() as device:
        near, rounded, _ = one_step(TF32)
    assert device.rounded > 10 and near != loss
    assert near == pytest.approx(loss, rel=1e-3)
    assert (rounded - gradient).norm() < 5e-3 * gradient.norm()


def test_settings_are_as_they_were_after_a_step():
    before = torch.get_float32_matmul_precision()
    with TF32.step():
        assert torch.get_float32_matmul_precision() == "high"
        with exact():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    with Precision().step():
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == before


class Seen(Objective):
    """Notes what it is given, and where it runs."""

    seen: list = []

    def forward(self, step):
        embeddings = step.embeddings.values()
        self.seen.append(
            ({x.dtype for x in embeddings}, torch.is_autocast_enabled("cpu"), step.precision.name)
        )
        return sum(x.square().mean() for x in embeddings)


class Watched(MlpAdapter):
    """Notes whether its products are in half precision."""

    seen: list = []

    def forward(self, latents):
        self.seen.append((torch.is_autocast_enabled("cpu"), self.training))
        return super().forward(latents)


def test_objectives_get_float32_and_validation_is_exact(components, split, recipe):
    components.add_component("objective", "seen", Seen)
    components.add_component("adapter", "watched", Watched, blocks=4, expansion=4.0, dropout=0.0)
    Seen.seen, Watched.seen = [], []
    adapter = Part("watched", {"blocks": 1})
    settings = replace(recipe(precision="half", epochs=1, adapter=adapter), objective=Part("seen"))
    GradientAligner().fit(*split(40, 10), settings, FitContext())
    assert Seen.seen and all(one == ({torch.float32}, False, "half") for one in Seen.seen)
    training = {half for half, training in Watched.seen if training}
    validating = {half for half, training in Watched.seen if not training}
    assert training == {True} and validating == {False}


def test_kernel_distances_metrics_and_closed_forms_are_exact_under_anything(split):
    torch.manual_seed(0)
    kernel = KernelAdapter(12, 6, landmarks=20)
    kernel.prepare(torch.randn(40, 12))
    rows, links = torch.randn(30, 12), torch.arange(30)[:, None].repeat(1, 2)
    train, validation = split(60, 20)

    def results():
        ranks = rank(rows, rows.flip(1), links, lambda x, y: cosine(x, y, "", ""))
        maps = CCAAligner().fit(train, validation, Recipe("r", Part("cca")), FitContext())
        return [
            kernel.features(rows),
            kernel(rows),
            embed_rows(kernel, ResidentLatents(rows), torch.arange(30)),
            ranks.average_precision,
            *(value for a in maps.values() for value in a.state_dict().values()),
        ]

    wanted = results()
    with Tf32() as device, TF32.step(), torch.autocast("cpu", torch.bfloat16):
        found = results()
    assert device.rounded == 0
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def fitted(recipe, data, folder=None, resume=False, **context):
    context = FitContext(seed=3, checkpoints=folder, resume=resume, **context)
    return GradientAligner().fit(*data, recipe, context)


def same(found, wanted):
    for modality, adapter in wanted.items():
        for name, value in adapter.state_dict().items():
            assert torch.equal(value, found[modality].state_dict()[name])


class Stop(Callback):
    def on_step(self, step, metrics):
        if step == 7:
            raise KeyboardInterrupt


def test_a_fit_in_half_is_resumed_to_the_bit(split, recipe, tmp_path):
    data, half = split(40, 10), recipe(precision="half")
    wanted = fitted(half, data)
    with pytest.raises(KeyboardInterrupt):
        fitted(half, data, tmp_path, callbacks=[Stop()])
    found = fitted(half, data, tmp_path, resume=True)
    same(found, wanted)


def test_a_checkpoint_in_other_numbers_is_refused(split, recipe, tmp_path):
    data = split(40, 10)
    fitted(recipe(precision="half"), data, tmp_path)
    with pytest.raises(ArtefactError, match="precision"):
        fitted(recipe(precision="float32"), data, tmp_path, resume=True)


def test_auto_resumes_in_what_the_checkpoint_is_in(split, recipe, tmp_path):
    data, auto = split(40, 10), recipe(precision="auto")
    wanted = fitted(recipe(precision="half"), data, tmp_path)
    again = fitted(auto, data, tmp_path, resume=True)
    same(again, wanted)
    newest = checkpoint.latest(tmp_path)
    assert newest.values["precision"] == "half"
    assert checkpoint.resumed_precision("auto", tmp_path) == "half"
    assert checkpoint.resumed_precision("float32", tmp_path) == "float32"
    assert checkpoint.resumed_precision("auto", tmp_path / "none") == "auto"


def test_a_checkpoint_from_before_there_was_a_choice_is_resumed_in_float32(tmp_path, monkeypatch):
    found = checkpoint.Checkpoint(tmp_path, {"step": 3})
    monkeypatch.setattr(checkpoint, "latest", lambda folder: found)
    assert checkpoint.resumed_precision("auto", tmp_path) == "float32"


def test_a_digest_of_float32_is_that_from_before_there_was_a_choice(split):
    data = split(40, 10)

    def digest(context=FitContext(), **precision):
        training = {"epochs": 4, "lr": 1e-3, **precision}
        return checkpoint.run_digest({"name": "r", "training": training}, *data, context)

    before = digest()
    assert digest(precision="float32") == digest(precision="auto") == before
    assert digest(precision="half") != before


def test_auto_is_recorded_as_what_it_comes_to_on_the_device(split, monkeypatch):
    capability(monkeypatch, 9, 0)
    data, settings = split(40, 10), {"training": {"precision": "auto"}}
    there = checkpoint.run_digest(settings, *data, FitContext(device=CUDA))
    half = checkpoint.run_digest(
        {"training": {"precision": "half"}}, *data, FitContext(device=CUDA)
    )
    assert there == half != checkpoint.run_digest(settings, *data, FitContext())


def test_a_trainer_gives_its_fit_the_precision(split, recipe, monkeypatch):
    monkeypatch.setattr(loop, "precision_of", lambda name, device: TF32)
    seen = []

    class Note(Callback):
        def on_step(self, step, metrics):
            seen.append(torch.get_float32_matmul_precision())

    with Tf32() as device:
        fitted(recipe(epochs=1), split(40, 10), callbacks=[Note()])
    assert device.rounded > 0 and set(seen) == {"highest"}
