"""Views from Python: latents to read, a fit on more axes than one, what can't be fitted."""

from dataclasses import replace

import pytest
import torch
from pairs import write_world
from toys import GridImage, TokenText

from fusemix_core import FusedModel, align, encode
from fusemix_core.errors import ConfigError
from fusemix_core.latents.store import LatentStore
from fusemix_core.registry import Registry, registry
from fusemix_core.runs.config import build_config, resolve_views
from fusemix_core.runs.plan import make_plan

PAPER = {
    "recipe": "fusemix",
    "overrides": ["training.epochs=2", "adapter.blocks=1", "dim=8"],
    "device": "cpu",
}
BOTH = {"image": GridImage, "text": TokenText}


@pytest.fixture
def data(tmp_path):
    return write_world(tmp_path / "w", count=32)


def test_views_are_checked_and_filled_in():
    specs = {"image": GridImage.spec, "text": TokenText.spec}
    assert resolve_views(specs, {}) == {"image": "pooled", "text": "pooled"}
    assert resolve_views(specs, {"image": "grid"}) == {"image": "grid", "text": "pooled"}
    with pytest.raises(ConfigError, match="no view 'time'") as caught:
        resolve_views(specs, {"text": "time"})
    assert caught.value.hint == "Its views: pooled, tokens, layers."
    with pytest.raises(ConfigError, match="audio"):
        resolve_views(specs, {"audio": "pooled"})


def test_a_recipes_views_are_taken_where_the_user_names_none(data):
    recipe = {"name": "auto", "views": {"text": "layers", "image": "time"}}
    table = {"encoders": {"image": "grid", "text": "token"}, "data": {"source": [str(data)]}}

    def views(**values):
        return build_config({**table, "recipe": recipe, **values}, registry=known)[0].views

    known = Registry()
    known.add(replace(GridImage.spec, name="grid"))
    known.add(replace(TokenText.spec, name="token"))
    assert views() == {"image": "pooled", "text": "layers"}  # the encoder has no view `time`
    assert views(views={"text": "tokens"}) == {"image": "pooled", "text": "tokens"}
    assert views(fixed=["text"]) == {"image": "pooled", "text": "pooled"}
    assert views(recipe="fusemix")["text"] == "pooled"


def test_tokens_can_be_read_item_by_item(data):
    found = encode({"text": TokenText}, data, views={"text": "tokens"}, device="cpu")
    items, table = found.dataset.items["text"], found.tables["text"]
    encoder = TokenText(TokenText.spec)
    assert len(items) == len(table) == 32
    index = torch.tensor([5, 0, 31])
    padded = table.rows(index)
    for i, row, mask in zip(index.tolist(), padded.values, padded.mask, strict=True):
        alone = encoder.encode(encoder.collate([items.load(i)]), "tokens").values[0]
        assert table.lengths[i] == len(alone) == 1 + len(items.load(i).split())
        torch.testing.assert_close(row[mask], alone, rtol=1e-3, atol=1e-3)
    pairs = found.paired()
    assert table.shape == (int(table.lengths.max()), 12)
    rows = pairs.latents_of("text", index).unflatten(1, table.shape)
    assert torch.equal(rows[:, : padded.values.shape[1]], padded.values)
    assert not rows[:, padded.values.shape[1] :].any()
    tokens = pairs.with_tokens(["text"]).latents_of("text", index)
    assert torch.equal(tokens.values, padded.values) and torch.equal(tokens.mask, padded.mask)


def test_a_grid_can_be_read_with_its_axes(data):
    loaded = GridImage(GridImage.spec)
    found = encode({"image": loaded}, data, views={"image": "grid"}, device="cpu")
    table = found.tables["image"]
    assert (table.shape, table.dim) == ((2, 3, 16), 96)
    rows = table.rows(torch.tensor([3, 1]))
    alone = loaded.encode(loaded.collate([found.dataset.items["image"].load(3)]), "grid")
    assert rows.shape == (2, 2, 3, 16)
    torch.testing.assert_close(rows[:1], alone, rtol=1e-3, atol=1e-3)  # stored as float16
    pairs = found.paired()
    assert torch.equal(pairs.latents_of("image", torch.tensor([3, 1])), rows.flatten(1))
    tokens = pairs.with_tokens(["image"]).latents_of("image", torch.tensor([3, 1]))
    assert torch.equal(tokens.values, rows.flatten(1, 2)) and tokens.mask.all()


def test_embed_says_what_is_wrong(data):
    with pytest.raises(ConfigError, match="No encoder"):
        encode({}, data)
    with pytest.raises(ConfigError, match="no view 'grid'"):
        encode({"text": TokenText}, data, views={"text": "grid"})


def test_a_fit_on_a_grid_and_on_layers(tmp_path, data):
    views = {"image": "grid", "text": "layers"}
    done = align(BOTH, data, views=views, out=tmp_path / "r", **PAPER)
    assert {m: e.view for m, e in done.model.encoders.items()} == views
    assert {m: e.dim for m, e in done.model.encoders.items()} == {"image": 96, "text": 24}
    # What the model makes of a picture is what its adapter makes of the stored latent.
    table = done.encoded.tables["image"]
    files = [done.encoded.dataset.items["image"].describe(i) for i in range(3)]
    direct = done.model.encode("image", files)
    rows = table.rows(torch.arange(3))
    torch.testing.assert_close(done.model.embed("image", rows), direct, rtol=1e-2, atol=1e-2)
    again = FusedModel.from_pretrained(
        tmp_path / "r/model", encoders={"image": GridImage.spec, "text": TokenText.spec}
    )
    assert torch.equal(again.encode("image", files), direct)
    assert "grid, 96" in (tmp_path / "r/model/README.md").read_text()
    assert "grid" in (tmp_path / "r/report.html").read_text()


def test_unequal_lengths_are_refused_with_a_view_that_will_do(tmp_path, data):
    with pytest.raises(ConfigError, match="view 'tokens' of toy-tokens") as caught:
        align(BOTH, data, views={"text": "tokens"}, out=tmp_path / "r", **PAPER)
    assert "such as 'pooled'" in caught.value.hint
    assert LatentStore().views() == []  # found before the other encoder's work was done


def test_the_plan_tells_the_bytes_once_the_shape_is_known(data):
    class Known(GridImage):
        spec = replace(GridImage.spec, name="known-grid", sha256="ab" * 32)

    def planned():
        config, specs = build_config(
            {
                "encoders": {"image": "known-grid", "text": "toy-tokens"},
                "data": {"source": [str(data)]},
                "views": {"image": "grid", "text": "layers"},
            }
        )
        plan = make_plan(config, specs)
        return [(e.view, e.cached, e.store_bytes) for e in plan.encoders.values()]

    registry.add(Known)
    registry.add(TokenText)
    assert planned() == [("grid", 0, None), ("layers", None, None)]
    encode({"image": Known}, data, views={"image": "grid"}, device="cpu")
    write_world(data.parent, count=40)
    assert planned()[0] == ("grid", 32, 8 * 96 * 2)
