"""Which runtime encodes: chosen on the user's first items, never at the price of other latents."""

import pickle
import time

import pytest
import started
import torch
from torch import nn

from fusemix_core.errors import ConfigError, MissingDependencyError
from fusemix_core.interfaces import Network, Padded
from fusemix_core.latents import backends, exported
from fusemix_core.latents.backends import agreement, vectors
from fusemix_core.latents.exported import Session
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.project import how_to_install


class Layer(nn.Module):
    """The toy's layer: as torch runs it, slow by `delay`, and as it exports, off by `error`."""

    def __init__(self, layer, delay, error, data_dependent=False):
        super().__init__()
        self.layer, self.delay, self.error = layer, delay, error
        self.data_dependent = data_dependent

    def forward(self, values):
        if torch.compiler.is_exporting():
            if self.data_dependent and values.sum() > 0:
                values = values + 1
            return self.layer(values) + self.error
        time.sleep(self.delay)
        return self.layer(values)


def offering(toy, delay=0.05, error=0.0, **options):
    """A toy encoder that offers its network for the pooled view."""

    class Offering(toy.ToyEncoder):
        def network(self, view):
            layer = Layer(self.layer, delay, error, **options)
            return Network(layer) if view == "pooled" else None

        def encode(self, batch, view="pooled"):
            if view != "pooled":
                return super().encode(batch, view)
            type(self).batches.append(batch[0])
            return self.compute(view, values=batch[1])

    return Offering(toy.spec())


def torch_latents(toy, values):
    encoder = toy.ToyEncoder(toy.spec())
    return encoder.encode(encoder.collate(values))


def run(toy, store, values, encoder, **options):
    """The extraction; its float32 rows are compared with torch's."""
    items = toy.ToyItems(values)
    done = toy.extracted(
        encoder.spec, items, store, store_dtype="float32", encoder=encoder, **options
    )
    found = done.table.rows(torch.arange(len(values)))
    torch.testing.assert_close(found, torch_latents(toy, values), rtol=1e-5, atol=1e-5)
    assert encoder.runtime is None
    return done


@pytest.fixture
def exports(monkeypatch):
    """Networks exported, as they are; and any amount of work is worth an export."""
    made, export = [], exported.exported
    monkeypatch.setattr(exported, "exported", lambda *args: made.append(args) or export(*args))
    monkeypatch.setattr(backends, "EXPORT_SECONDS", 0.0)
    return made


@pytest.fixture
def sessions(monkeypatch):
    """Sizes of the batches that OpenVINO got."""
    sizes, call = [], Session.__call__

    def counted(self, inputs):
        sizes.append(len(next(iter(inputs.values()))))
        return call(self, inputs)

    monkeypatch.setattr(Session, "__call__", counted)
    return sizes


def test_a_faster_runtime_is_found_kept_and_made_again_if_damaged(toy, store, exports, sessions):
    values = toy.texts(120)
    assert run(toy, store, values[:40], offering(toy)).warnings == []
    assert len(exports) == 1 and sum(sizes for sizes in sessions) == 40 + 2 * 8
    folder = store.folder.parent / "exports" / fingerprint(toy.spec(), "float32")
    (file,) = folder.iterdir()

    assert run(toy, store, values[:80], offering(toy)).warnings == []
    assert len(exports) == 1 and len(sessions) > 3  # the kept file

    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert run(toy, store, values, offering(toy)).warnings == []
    assert len(exports) == 2 and [file] == list(folder.iterdir())


def test_a_kept_file_of_another_make_of_the_network_is_made_again(toy, store, exports, sessions):
    values = toy.texts(80)
    said = run(toy, store, values[:40], offering(toy, error=0.5)).warnings
    assert len(said) == 1 and said[0].startswith(
        "toy is run by torch: OpenVINO gives other latents (cosine 0."
    )
    assert len(sessions) == 2  # the probe's
    assert run(toy, store, values, offering(toy)).warnings == []
    assert len(exports) == 2 and len(sessions) > 4


def test_a_network_that_does_not_export_stays_with_torch_and_says_so(toy, store, exports):
    (said,) = run(toy, store, toy.texts(40), offering(toy, data_dependent=True)).warnings
    assert said.startswith("toy is run by torch: it can't be exported to ONNX (")


def test_a_runtime_that_is_not_faster_is_not_used_unless_asked_for(
    toy, store, exports, sessions, monkeypatch
):
    call = Session.__call__
    monkeypatch.setattr(Session, "__call__", lambda s, i: time.sleep(0.02) or call(s, i))
    (said,) = run(toy, store, toy.texts(40), offering(toy, delay=0)).warnings
    assert said == "toy is run by torch: OpenVINO is not faster."
    assert len(sessions) == 2
    assert run(toy, store, toy.texts(80), offering(toy, delay=0), backend="openvino").warnings == []
    assert sum(sessions) == 40 + 4 * 8


def test_a_runtime_that_fails_on_the_way_gives_the_work_back(
    toy, store, exports, sessions, monkeypatch
):
    call = Session.__call__

    def no_more_than_a_probe(self, inputs):
        if len(inputs["values"]) > 8:
            raise RuntimeError("no room for that")
        return call(self, inputs)

    monkeypatch.setattr(Session, "__call__", no_more_than_a_probe)
    done = run(toy, store, toy.texts(40), offering(toy), batch_size=16)
    assert done.warnings == [
        "toy was run by torch after OpenVINO failed (RuntimeError: no room for that)."
    ]


def test_little_work_is_not_worth_an_export(toy, store, exports, monkeypatch):
    run(toy, store, toy.texts(8), offering(toy))
    monkeypatch.setattr(backends, "EXPORT_SECONDS", 60.0)
    run(toy, store, toy.texts(100), offering(toy))
    run(toy, store, toy.texts(120), offering(toy), backend="eager")
    assert exports == []


def test_bad_first_items_leave_torch_in_place(toy, store, exports):
    values = [*(toy.damaged(i) for i in range(8)), *toy.texts(40)]
    encoder = offering(toy)
    done = toy.extracted(encoder.spec, toy.ToyItems(values), store, encoder=encoder)
    assert (len(done.bad), done.encoded, done.warnings) == (8, 40, [])
    assert exports == []


def test_without_its_packages_torch_encodes_and_many_items_hear_of_them(toy, store, monkeypatch):
    monkeypatch.setattr(exported, "missing", lambda: "openvino")
    assert run(toy, store, toy.texts(40), offering(toy)).warnings == []
    (said,) = run(toy, store, toy.texts(400), offering(toy, delay=0)).warnings
    assert how_to_install("fusemix[fast]") in said
    with pytest.raises(MissingDependencyError) as caught:
        run(toy, store, toy.texts(500), offering(toy), backend="openvino")
    assert caught.value.hint == how_to_install("fusemix[fast]")


def test_an_encoder_without_a_network_is_run_by_torch(toy, store, exports):
    plain = toy.ToyEncoder(toy.spec())
    assert run(toy, store, toy.texts(40), plain).warnings == []
    (said,) = run(toy, store, toy.texts(80), plain, backend="openvino").warnings
    assert said == "toy is run by torch: it offers no network for the view 'pooled'."
    assert exports == []


def test_another_precision_than_float32_cannot_be_asked_for(toy, store):
    with pytest.raises(ConfigError, match="float32, not on cpu in float16"):
        run(toy, store, toy.texts(40), offering(toy), backend="openvino", dtype="float16")


class MaskedMean(nn.Module):
    """The mean of the embeddings of an item's own tokens `[n, t]`."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 6)

    def forward(self, ids, mask):
        values = self.embedding(ids) * mask[:, :, None]
        return values.sum(1) / mask.sum(1, keepdim=True)


def test_an_export_takes_batches_of_any_number_and_length(tmp_path):
    module = MaskedMean().eval()

    def inputs(n, t):
        lengths = torch.arange(n) % t + 1
        return {
            "ids": torch.arange(n * t).view(n, t) % 50,
            "mask": (torch.arange(t) < lengths[:, None]).long(),
        }

    path = tmp_path / "it.onnx"
    path.write_bytes(exported.exported(Network(module, axes=(0, 1)), inputs(1, 2)))
    session = Session(path)
    for n, t in ((1, 1), (2, 2), (3, 17), (40, 5)):
        torch.testing.assert_close(session(inputs(n, t)), module(**inputs(n, t)).detach())


def test_a_signal_finds_the_process_whole_after_one_session_followed_another(tmp_path):
    path = tmp_path / "it.onnx"
    inputs = {"ids": torch.ones(2, 3, dtype=torch.int64), "mask": torch.ones(2, 3)}
    path.write_bytes(exported.exported(Network(MaskedMean().eval(), axes=(0, 1)), inputs))
    code = (
        "import faulthandler, os, signal, sys; from pathlib import Path; faulthandler.enable();"
        "from fusemix_core.latents.exported import Session;"
        "first = Session(Path(sys.argv[1])); second = Session(Path(sys.argv[1]));"
        "del first, second; signal.signal(signal.SIGINT, lambda *_: print('kept'));"
        "os.kill(os.getpid(), signal.SIGINT)"
    )
    done = started.run("-c", code, path)
    assert (done.returncode, done.stdout) == (0, "kept\n"), done.stderr


def test_agreement_is_the_least_cosine_of_rows_of_one_length():
    a = torch.randn(20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    b = a + 0.1 * a.roll(1, 0)
    b = b / b.norm(dim=1, keepdim=True) * a.norm(dim=1, keepdim=True)
    cosines = [float(x @ y / x.norm() / y.norm()) for x, y in zip(a, b, strict=True)]
    assert agreement(a, b) == pytest.approx(min(cosines))
    assert agreement(a, a) == 1 and agreement(a, 1.1 * a) < 0.999
    assert not agreement(a, a[:, :4]) >= 0 and not agreement(a, a * torch.nan) >= 0


def test_padding_has_no_part_in_the_agreement():
    mask = torch.tensor([[True, True], [True, False]])
    padded = Padded(torch.arange(8.0).view(2, 2, 2), mask)
    assert vectors(padded).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert vectors(torch.zeros(3, 4, 5, 6)).shape == (60, 6)


def test_a_runtime_does_not_travel_to_workers(toy):
    encoder = toy.ToyEncoder(toy.spec())
    encoder.runtime = lambda view, inputs: inputs
    assert "runtime" not in encoder.__getstate__() and pickle.dumps(encoder.__getstate__())
