"""Fits on items that differ in length: what a token adapter gets, keeps and serves."""

import json
from dataclasses import replace

import onnxruntime
import pytest
import torch
from pairs import write_world
from toys import GridImage, TokenMean, TokenText

from fusemix_core import FusedModel, align, encode
from fusemix_core.config import (
    DataConfig,
    Part,
    Recipe,
    Training,
    from_dict,
    to_dict,
)
from fusemix_core.engine.feed import feed
from fusemix_core.engine.plan import plan_steps
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import (
    Callback,
    Padded,
    PairedLatents,
    ResidentLatents,
    as_tokens,
)
from fusemix_core.jobs.evaluate import evaluate
from fusemix_core.jobs.export import export
from fusemix_core.latents.tables import RaggedLatents
from fusemix_core.overrides import override_recipe
from fusemix_core.paired import ResidentTokens
from fusemix_core.registry import registry
from fusemix_core.runs import encode as encoding

BOTH = {"image": GridImage, "text": TokenText}
VIEWS = {"image": "grid", "text": "tokens"}


@pytest.fixture
def data(tmp_path):
    """Pairs of which one text is longer than the others."""
    source = write_world(tmp_path / "w", count=48)
    lines = source.read_text().splitlines()
    lines[5] = lines[5].replace("number", "that is the largest of them all number")
    source.write_text("\n".join(lines))
    return source


@pytest.fixture(autouse=True)
def token_mean():
    registry.add_component("adapter", "token-mean", TokenMean)


def fitted(data, out, mixup="none", views=VIEWS, sets=(), **more):
    settings = [
        "training.epochs=4",
        "training.batch_size=8",
        "adapter=token-mean",
        f"mixup={mixup}",
        "dim=8",
        *sets,
    ]
    return align(
        BOTH,
        data,
        views=views,
        out=out,
        device="cpu",
        recipe="fusemix",
        overrides=settings,
        **more,
    )


@pytest.fixture
def held(request, monkeypatch):
    if request.param == "on disk":
        monkeypatch.setattr(encoding, "memory_free", lambda: 0)
    return request.param


@pytest.mark.parametrize(
    ("held", "mixup"),
    [
        ("in memory", "none"),
        ("on disk", "fusemix"),
        pytest.param("in memory", "fusemix", marks=pytest.mark.long),
        pytest.param("on disk", "none", marks=pytest.mark.long),
    ],
    indirect=["held"],
)
def test_a_fit_on_tokens_is_served_as_it_was_measured(data, tmp_path, held, mixup):
    done = fitted(data, tmp_path / "r", mixup)
    kind = ResidentTokens if held == "in memory" else RaggedLatents
    assert isinstance(done.encoded.paired().tables["text"], kind)
    # A token's width is kept, not the length of the longest item.
    assert {m: e.dim for m, e in done.model.encoders.items()} == {"image": 16, "text": 12}
    again = FusedModel.from_pretrained(
        tmp_path / "r/model", encoders={"image": GridImage.spec, "text": TokenText.spec}
    )
    items = done.encoded.dataset.items["text"]
    texts = [items.load(i) for i in range(len(items))]
    served = again.encode("text", texts)
    padded = done.encoded.tables["text"].rows(torch.arange(len(items)))
    torch.testing.assert_close(again.embed("text", padded), served, rtol=1e-2, atol=1e-2)
    full = Padded(padded.filled(torch.nan), padded.mask)
    assert torch.equal(again.embed("text", full), again.embed("text", padded))
    # Alone, and longer or shorter than any item of the fit.
    torch.testing.assert_close(again.encode("text", texts[4:5]), served[4:5])
    assert again.encode("text", ["red", "a red car " * 20]).isfinite().all()
    longer = tmp_path / "w" / "longer.csv"
    lines = data.read_text().splitlines()
    lines[1] = lines[1].replace("number", "of a length never seen " * 9)
    longer.write_text("\n".join(lines))
    found = evaluate(again, DataConfig(source=(str(longer),)), "all")
    assert found["retrieval"]["mean_recall"] > 0.2


@pytest.mark.slow
def test_an_export_begins_with_the_tokens(data, tmp_path):
    model = fitted(data, tmp_path / "r").model
    export(model, "onnx", tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())["modalities"]["text"]
    assert config["begins_with"] == "tokens"
    assert config["inputs"]["tokens"] == {"dtype": "float32", "shape": ["n", "t", 12]}
    session = onnxruntime.InferenceSession(tmp_path / "out" / config["file"])
    tokens, mask = torch.randn(2, 7, 12), torch.arange(7) < torch.tensor([[7], [3]])
    (found,) = session.run(["vector"], {"tokens": tokens.numpy(), "mask": mask.numpy()})
    expected = model.embed("text", Padded(tokens, mask))
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=0)


def test_padded_latents_of_another_width_are_refused(data, tmp_path):
    model = fitted(data, tmp_path / "r").model
    values, mask = (
        torch.full((2, 3, 12), torch.nan),
        torch.tensor([[True] * 3, [True, False, False]]),
    )
    values[mask] = 1.0
    assert model.embed("text", Padded(values, mask)).isfinite().all()
    same = torch.ones(2, 2, 12)  # two tokens an item
    assert torch.equal(model.embed("text", same), model.embed("text", as_tokens(same)))
    for shape in ((2, 13), (2, 24), (2, 0), (2, 3, 11), (12,)):
        with pytest.raises(ConfigError, match=r"must be \[n, T, 12\]"):
            model.embed("text", torch.ones(shape))


class ZeroStart(TokenText):
    """A TokenText whose first token is all zero."""

    spec = replace(TokenText.spec, name="toy-zero-start", target="jobs.test_token_views:ZeroStart")

    def encode(self, batch, view="pooled"):
        found = super().encode(batch, view)
        if view == "tokens":
            found.values[:, 0] = 0
        return found


@pytest.mark.parametrize(
    "mixup", [pytest.param("none", marks=pytest.mark.long), "fusemix", "gaussian"]
)
def test_a_token_of_zeros_is_a_token_from_the_encoder_to_the_embedding(data, tmp_path, mixup):
    seen = []

    class Watching(TokenMean):
        def tokens(self, latents):
            seen.append(latents)
            return super().tokens(latents)

    registry.add_component("adapter", "watching", Watching)
    done = align(
        {"image": GridImage, "text": ZeroStart}, data, views={"text": "tokens"}, device="cpu",
        out=tmp_path / "r", recipe="fusemix", overrides=[
            "training.epochs=1", "training.batch_size=8", "adapter=linear", "dim=8",
            "adapters.text=watching", f"mixup={mixup}",
        ],
    )  # fmt: skip
    items, table = done.encoded.dataset.items["text"], done.encoded.tables["text"]
    texts = [items.load(i) for i in range(len(items))]
    lengths = [1 + len(text.split()) for text in texts]
    assert table.lengths.tolist() == lengths
    batches = [x for x in seen if len(x) == 8]
    assert batches and all(x.mask[:, 0].all() for x in batches)
    assert any(x.values[:, 0].any() for x in batches) == (mixup == "gaussian")
    out = done.model.adapters["text"].out
    x = table.rows(torch.arange(len(items)))
    assert not x.values[:, 0].any()
    means = x.filled().sum(dim=1) / torch.tensor(lengths)[:, None]  # the zeros count
    wanted = torch.nn.functional.normalize(out(means), dim=1)
    torch.testing.assert_close(done.model.embed("text", x), wanted)
    torch.testing.assert_close(done.model.encode("text", texts), wanted, rtol=1e-2, atol=1e-2)


def test_one_modality_may_have_an_adapter_of_its_own(data, tmp_path):
    sets = ["adapter=linear", "adapters.text=token-mean"]
    done = fitted(data, tmp_path / "r", views={"text": "tokens"}, sets=sets)
    kinds = {m: type(a).__name__ for m, a in done.model.adapters.items()}
    assert kinds == {"image": "LinearAdapter", "text": "TokenMean"}
    with pytest.raises(ConfigError, match="different length"):
        fitted(data, tmp_path / "s", sets=["adapter=linear"])
    with pytest.raises(ConfigError, match="audio"):
        fitted(data, tmp_path / "t", sets=["adapters.audio=linear"])


def test_an_objective_that_takes_tokens_needs_adapters_that_give_them(data, tmp_path):
    with pytest.raises(ConfigError, match="image adapter 'linear' has none"):
        fitted(
            data,
            tmp_path / "r",
            sets=["objective=token-infonce", "adapters.image=linear"],
        )
    done = fitted(data, tmp_path / "s", sets=["objective=token-infonce"])
    assert "token_loss" in (done.folder.path / "metrics.jsonl").read_text()


class StopAt(Callback):
    def on_step(self, step, metrics):
        if step == 7:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "held", ["on disk", pytest.param("in memory", marks=pytest.mark.long)], indirect=True
)
def test_stopped_and_resumed_is_never_stopped(data, tmp_path, held):
    sets = ["objective=token-infonce"]
    whole = fitted(data, tmp_path / "whole", "fusemix", sets=sets).model

    class Reporter(encoding.Reporter, StopAt):
        pass

    with pytest.raises(KeyboardInterrupt):
        fitted(data, tmp_path / "parts", "fusemix", sets=sets, reporter=Reporter())
    assert list((tmp_path / "parts/checkpoints").glob("step-7"))
    resumed = fitted(data, tmp_path / "parts", "fusemix", sets=sets, resume=True).model
    for modality, adapter in whole.adapters.items():
        for name, value in adapter.state_dict().items():
            assert torch.equal(value, resumed.adapters[modality].state_dict()[name]), name


def test_disk_memory_and_device_give_the_same_tokens(data):
    done = encode({"text": TokenText}, data, views={"text": "tokens"}, device="cpu")
    resident, table = done.tables["text"], done.extractions["text"].table
    assert isinstance(table, RaggedLatents) and isinstance(resident, ResidentTokens)
    assert table.shape == resident.shape == (int(table.lengths.max()), 12)
    assert table.dim == resident.dim == 12 * int(table.lengths.max())
    assert len(resident) == len(table)
    assert resident.latents.shape == (int(table.lengths.sum()), 12)  # no padding is held
    assert table.nbytes == resident.latents.nbytes
    for index in ([], [3], [9, 0, 0, 47], list(range(48))):
        index = torch.tensor(index, dtype=torch.int64)
        wanted = table.rows(index)
        assert wanted.dtype == torch.float32
        longest = max([1, *table.lengths[index].tolist()])
        assert wanted.values.shape == (len(index), longest, 12)
        assert torch.equal(wanted.mask.sum(dim=1), table.lengths[index])
        for other in (resident, resident.to(torch.device("cpu")), table.load()):
            found = other.rows(index)
            assert torch.equal(found.values, wanted.values)
            assert torch.equal(found.mask, wanted.mask)


def test_blocks_from_disk_are_the_batches_from_memory(data):
    found = encode(BOTH, data, views=VIEWS, device="cpu")
    pairs = found.paired()
    plan = plan_steps(len(pairs), 1, Training(epochs=2, batch_size=8))
    pairs.links[::5, 1] = -1  # of a window, item 0 is another than of the whole
    tables = {"image": pairs.tables["image"], "text": found.extractions["text"].table}
    on_disk = PairedLatents(tables, pairs.links).with_tokens(["text"])
    assert isinstance(pairs.tables["text"], ResidentLatents)
    pairs = pairs.with_tokens(["text"])
    for one, other in zip(
        feed(pairs, plan, 0, torch.device("cpu"), blocks=True),
        feed(on_disk, plan, 0, torch.device("cpu"), blocks=True),
        strict=True,
    ):
        assert torch.equal(one.links, other.links)
        assert torch.equal(one.latents["image"], other.latents["image"])
        tokens, same = one.latents["text"], other.latents["text"]
        assert torch.equal(tokens.values, same.values) and torch.equal(tokens.mask, same.mask)
        assert not tokens.mask[one.links[:, 0, 1] < 0].any()


def test_a_recipe_keeps_adapters_through_its_settings():
    recipe = Recipe("r", Part("gradient"), adapter=Part("mlp", {"blocks": 1}))
    changed = override_recipe(recipe, ["adapters.text.blocks=2", "adapters.image=linear"])
    assert changed.adapters == {"text": Part("mlp", {"blocks": 2}), "image": Part("linear")}
    assert changed.adapter_of("audio") == recipe.adapter == Part("mlp", {"blocks": 1})
    assert from_dict(Recipe, to_dict(changed)) == changed
    assert override_recipe(changed, ["adapters.text=none"]).adapter_of("text") == recipe.adapter
    assert "adapters" not in to_dict(recipe)
