"""Vectors for other programs: forms for an index, fewer dimensions, and the order of these."""

import json

import pytest
import torch
from torch.nn.functional import normalize

from fusemix_core.errors import ArtefactError, ConfigError, UnknownNameError
from fusemix_core.fused import FusedModel
from fusemix_core.scorers.csls import CSLSScorer
from fusemix_core.space import Space, rotation_of

MODALITIES = ("image", "text")


def rows(n, seed=0, d=16):
    """Embeddings of a space in which few directions say most, none of them an axis."""
    draw = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(9))).Q
    scale = torch.linspace(1, 0, d) ** 3 + 0.01
    return normalize((torch.randn(n, d, generator=draw) * scale) @ turn, dim=1)


@pytest.fixture
def space():
    train = {m: rows(200, seed) for seed, m in enumerate(MODALITIES)}
    scorer = CSLSScorer(neighbours=3, bank_size=64)
    scorer.fit(train)
    return Space(16, MODALITIES, scorer, rotation_of(train))


def test_the_rotation_is_orthogonal_and_orders_the_dimensions(space):
    turned = space.rotation
    torch.testing.assert_close(turned.T @ turned, torch.eye(16), atol=1e-5, rtol=0)
    energy = (rows(500, 5) @ turned).square().mean(0)
    assert energy[:8].diff().max() < 0 and energy[8:].sum() < 0.05


def test_all_dimensions_in_order_score_as_before(space):
    queries, gallery = rows(20, 7), rows(30, 8)
    prefix = space.prefix(16)
    expected = space.scorer.score(queries, gallery, "text", "image")
    found = prefix.score(prefix.of(queries), prefix.of(gallery), "text", "image")
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)  # banks are float16
    torch.testing.assert_close(prefix.of(queries) @ prefix.of(gallery).T, queries @ gallery.T)


def test_leading_dimensions_keep_more_than_any_others(space):
    queries, gallery = rows(60, 7), rows(300, 8)
    exact = (queries @ gallery.T).topk(10).indices

    def overlap(basis):
        a, b = (normalize(r @ basis, dim=1) for r in (queries, gallery))
        found = (a @ b.T).topk(10).indices
        return (found[:, :, None] == exact[:, None]).any(1).float().mean()

    assert overlap(space.rotation[:, :6]) > overlap(torch.eye(16)[:, :6]) + 0.2


@pytest.mark.parametrize("dim", [None, 6])
def test_forms_rank_as_the_scorer_by_inner_product(space, dim):
    queries, gallery = rows(20, 7), rows(30, 8)
    asked = space.convert(queries, "text", form="query", dim=dim)
    stored = space.convert(gallery, "image", form="gallery", dim=dim)
    assert asked.shape == (20, (dim or 16) + 2)
    if dim is None:
        scores = space.scorer.score(queries, gallery, "text", "image")
    else:
        prefix = space.prefix(dim)
        scores = prefix.score(prefix.of(queries), prefix.of(gallery), "text", "image")
    assert torch.equal((asked @ stored.T).argsort(dim=1), scores.argsort(dim=1))


def test_an_index_for_some_queries_has_a_column_for_these_only(space):
    assert space.convert(rows(3), "image", form="gallery", against=["text"]).shape == (3, 17)
    with pytest.raises(ConfigError, match="no column for queries of image"):
        space.convert(rows(3), "image", form="query", against=["text"])


@pytest.mark.parametrize("dtype", ["int8", "binary"])
def test_codes_have_no_room_for_a_scorers_columns(space, dtype):
    with pytest.raises(ConfigError, match="2 columns"):
        space.convert(rows(3), "image", form="gallery", dtype=dtype)
    assert space.convert(rows(3), "image", dtype=dtype).shape == (3, 16 if dtype == "int8" else 2)


def test_what_can_not_be_is_refused(space):
    for dim in (0, 17):
        with pytest.raises(ConfigError, match="from 1 to 16"):
            space.convert(rows(2), "text", dim=dim)
    with pytest.raises(UnknownNameError, match="querry"):
        space.convert(rows(2), "text", form="querry")


def test_encode_gives_what_convert_does(toys, items):
    model = toys.model(scorer=toys.csls())
    whole = model.encode("text", items["text"])
    model.rotation = rotation_of({"text": whole})
    assert torch.equal(model.encode("text", items["text"], dim=3, dtype="float16"),
                       model.convert(whole, "text", dim=3, dtype="float16"))  # fmt: skip
    assert torch.equal(model.encode("text", items["text"], form="query"),
                       model.convert(whole, "text", form="query"))  # fmt: skip


def test_the_order_is_saved_with_the_model(toys, items, tmp_path):
    model = toys.model()
    model.rotation = rotation_of({"text": model.encode("text", items["text"])})
    model.save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m/config.json").read_text())
    assert (config["rotation"], config["format"]) == (4, 3)
    loaded = FusedModel.from_pretrained(tmp_path / "m", registry=toys.registry, device="cpu")
    given = model.encode("text", items["text"], dim=2)
    assert torch.equal(loaded.encode("text", items["text"], dim=2), given)


def test_a_model_without_an_order_says_so(toys, items, tmp_path):
    toys.model().save_pretrained(tmp_path / "m")
    loaded = FusedModel.from_pretrained(tmp_path / "m", registry=toys.registry, device="cpu")
    with pytest.raises(ConfigError, match="which of its dimensions") as caught:
        loaded.encode("text", items["text"], dim=2)
    assert "rotation_of" in caught.value.hint


def test_a_matrix_that_is_no_rotation_is_refused(toys, tmp_path):
    model = toys.model()
    model.rotation = torch.ones(4, 4)
    model.save_pretrained(tmp_path / "m")
    with pytest.raises(ArtefactError, match="not orthogonal"):
        FusedModel.from_pretrained(tmp_path / "m", registry=toys.registry, device="cpu")
