"""What a model encodes for a user is what extraction stores: one way from items to latents."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from fusemix_core.errors import ConfigError, ContractError, DataError, FusemixError
from fusemix_core.interfaces import Network, Padded
from fusemix_core.latents import backends, exported
from fusemix_core.latents.encoding import Encoding
from fusemix_core.latents.exported import Session
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import registry
from fusemix_core.saved.encoders import LazyEncoder
from fusemix_core.saved.schema import EncoderInfo

CPU = torch.device("cpu")


@pytest.fixture
def lazy(toy):
    """A model's encoder, given as an object."""

    def make(encoder=None, view="pooled", **changes) -> LazyEncoder:
        encoder = encoder or toy.ToyEncoder(toy.spec(**changes))
        info = EncoderInfo(
            name=encoder.spec.name,
            modality=encoder.spec.modality,
            dim=toy.DIM,
            fingerprint=fingerprint(encoder.spec, "float32"),
            view=view,
            takes=encoder.spec.modality,
        )
        return LazyEncoder(info, encoder, CPU, registry, "m")

    return make


def encoded(lazy, items, **how):
    """(item → its latents, the batches as lists of items)"""
    found, batches = {}, []
    for index, latents in lazy.encoded(items, Encoding(**how)):
        batches.append(index)
        if isinstance(latents, Padded):
            own = [v[m] for v, m in zip(latents.values, latents.mask, strict=True)]
        else:
            own = list(latents)
        found |= dict(zip(index, own, strict=True))
    assert sorted(found) == list(range(len(items)))
    return found, batches


def stored(toy, store, items, view, encoder=None, **how):
    """Item → the latents that extraction stores as float32."""
    encoder = encoder or toy.ToyEncoder(toy.spec())
    done = toy.extracted(
        encoder.spec, toy.ToyItems(items), store, view=view, encoder=encoder,
        store_dtype="float32", **how,
    )  # fmt: skip
    rows = done.table.rows(torch.arange(len(items)))
    if isinstance(rows, Padded):
        return [v[m] for v, m in zip(rows.values, rows.mask, strict=True)]
    return list(rows)


@pytest.mark.parametrize("view", ["pooled", "layers", "tokens"])
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 513, 1023, 1024, 1025])
def test_latents_are_those_of_extraction_bit_for_bit(toy, store, lazy, view, count):
    items = [text.strip() for text in toy.texts(count)]
    found, batches = encoded(lazy(view=view), items)
    encoder_batches = list(toy.ToyEncoder.batches)
    toy.ToyEncoder.batches.clear()
    expected = stored(toy, store, items, view)
    assert all(torch.equal(found[i], expected[i]) for i in range(count))
    assert toy.ToyEncoder.batches == encoder_batches
    assert len(batches) == len(encoder_batches)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_given_batch_size_holds(toy, store, lazy, batch_size):
    items = [text.strip() for text in toy.texts(130)]
    found, batches = encoded(lazy(), items, batch_size=batch_size)
    assert max(map(len, batches)) == batch_size
    expected = stored(toy, store, items, "pooled", batch_size=batch_size)
    assert all(torch.equal(found[i], expected[i]) for i in range(130))


def test_texts_are_sorted_by_length_and_come_under_a_budget(toy, lazy):
    items = ["word " * 400 + "end", *(f"{i} short" for i in range(300))]
    _, batches = encoded(lazy(), items)
    assert batches[0][0] == 0 and len(batches[0]) < 64 < max(map(len, batches))


@pytest.mark.parametrize("view", ["pooled", "tokens"])
def test_batches_are_halved_where_memory_runs_out(toy, store, lazy, view):
    items = [text.strip() for text in toy.texts(100)]
    found, batches = encoded(lazy(view=view, options={"at_once": 10}), items, batch_size=64)
    assert max(map(len, batches)) == 8
    expected = stored(toy, store, items, view)
    assert all(torch.allclose(found[i], expected[i]) for i in range(100))
    with pytest.raises(FusemixError, match="has not memory enough"):
        encoded(lazy(options={"at_once": 0}), items)


def test_a_bad_item_is_named_by_its_number(lazy):
    for items, reason in (
        (["a", "b", ""], "item 2 can't be encoded: empty text"),
        (["a", 5, "b"], "item 1 can't be encoded: "),
        ([*(f"text {i}" for i in range(90)), "uncollatable"], "item 90 .*can't collate that"),
    ):
        with pytest.raises(DataError, match=reason):
            encoded(lazy(), items)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda x: x[:-1], r"shape \[9, 8\]"),
        (lambda x: x.long(), "floating-point"),
        (lambda x: x.where(torch.arange(len(x))[:, None] != 3, torch.nan), "NaN .* 'text [0-9]"),
        (lambda x: "x", "a str"),
    ],
)
def test_what_breaks_the_contract_is_refused_as_by_extraction(toy, store, lazy, wrong, match):
    class Bad(toy.ToyEncoder):
        def encode(self, batch, view="pooled"):
            return wrong(super().encode(batch, view))

    items = [f"text {i}" for i in range(10)]
    messages = []
    for work in (
        lambda: encoded(lazy(Bad(toy.spec())), items),
        lambda: stored(toy, store, items, "pooled", Bad(toy.spec())),
    ):
        with pytest.raises(ContractError, match=match) as error:
            work()
        messages.append(error.value.message)
    assert messages[0] == messages[1]


# -- the faster runtime ---------------------------------------------------------------------------


class Slow(nn.Module):
    """The toy's layer; torch is slow."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, values):
        if not torch.compiler.is_exporting():
            time.sleep(0.03)
        return self.layer(values)


@pytest.fixture
def offering(toy, monkeypatch):
    """An encoder that offers its network, any work being worth an export."""
    monkeypatch.setattr(backends, "EXPORT_SECONDS", 0.0)

    class Offering(toy.ToyEncoder):
        def network(self, view):
            return Network(Slow(self.layer)) if view == "pooled" else None

        def encode(self, batch, view="pooled"):
            return self.compute(view, values=batch[1])

    return Offering(toy.spec())


@pytest.fixture
def sessions(monkeypatch):
    """Sizes of the batches that OpenVINO got."""
    sizes, call = [], Session.__call__
    monkeypatch.setattr(
        Session, "__call__", lambda s, i: sizes.append(len(i["values"])) or call(s, i)
    )
    return sizes


@pytest.mark.skipif(exported.missing() is not None, reason="fusemix[fast] is not installed")
def test_a_model_keeps_the_faster_runtime_that_it_found(toy, lazy, offering, sessions):
    model = lazy(offering)
    items = [text.strip() for text in toy.texts(40)]
    expected, _ = encoded(lazy(), items)
    for count, seen in ((40, 40 + 2 * 8), (40, 40), (1, 1)):
        sessions.clear()
        found, _ = encoded(model, items[:count])
        assert sum(sessions) == seen
        assert all(torch.allclose(found[i], expected[i], atol=1e-5) for i in range(count))
    assert offering.runtime is None  # that of others is torch, until they ask
    sessions.clear()
    encoded(model, items, backend="eager")
    assert sessions == []


def test_few_items_look_for_no_runtime_and_more_do_once(toy, lazy, offering, monkeypatch):
    looked = []
    monkeypatch.setattr(
        "fusemix_core.latents.encoding.accelerate", lambda e, work, *_: looked.append(work.count)
    )
    model = lazy(offering)
    items = [text.strip() for text in toy.texts(100)]
    for count in (20, 20, 60, 80, 81, 100, 40):
        encoded(model, items[:count])
    assert looked == [20, 81]


def test_openvino_can_be_asked_for_where_it_can_be_had(toy, lazy):
    with pytest.warns(UserWarning, match="offers no network"):
        encoded(lazy(), toy.texts(9), backend="openvino")
    with pytest.raises(ConfigError, match="backend is 'onnx'"):
        encoded(lazy(), toy.texts(9), backend="onnx")
