"""Cosine and CSLS against their definitions in plain loops."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Scorer
from fusemix_core.samples import even_sample
from fusemix_core.scorers import csls
from fusemix_core.scorers.cosine import CosineScorer
from fusemix_core.scorers.csls import CSLSScorer


def rows(n: int, seed: int, d: int = 6) -> torch.Tensor:
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def naive_csls(queries, gallery, target_bank, query_bank, k) -> torch.Tensor:
    """The formula, one pair at a time, in float64."""

    def cos(a, b) -> float:
        return float((a.double() * b.double()).sum())

    def r(x, bank) -> float:
        nearest = sorted((cos(x, b) for b in bank), reverse=True)[:k]
        return sum(nearest) / len(nearest)

    return torch.tensor(
        [[2 * cos(q, g) - r(q, target_bank) - r(g, query_bank) for g in gallery] for q in queries]
    )


@pytest.fixture
def fitted() -> CSLSScorer:
    scorer = CSLSScorer(neighbours=3)
    scorer.fit({"image": rows(12, 0), "text": rows(17, 1), "audio": rows(2, 2)})
    return scorer


def test_cosine_is_the_inner_product():
    queries, gallery = rows(4, 0), rows(5, 1)
    scores = CosineScorer().score(queries.half(), gallery, "text", "image")
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, queries.half().float() @ gallery.T)
    torch.testing.assert_close(
        CosineScorer().prepare(gallery, "text", "image")(queries), queries @ gallery.T
    )
    assert CosineScorer().tensors == {}
    with pytest.raises(ValueError, match="no tensors"):
        CosineScorer().tensors = {"x": queries}


@pytest.mark.parametrize("query", ["image", "text", "audio"])
@pytest.mark.parametrize("target", ["image", "text", "audio"])
def test_csls_is_its_definition(fitted, query, target):
    """In every direction, a modality against itself and a bank smaller than k (audio) included."""
    queries, gallery = rows(5, 3), rows(4, 4)
    banks = {name.removeprefix("bank."): bank for name, bank in fitted.tensors.items()}
    expected = naive_csls(queries, gallery, banks[target], banks[query], 3)
    torch.testing.assert_close(fitted.score(queries, gallery, query, target), expected)


def test_the_bank_in_half_precision_scores_as_the_training_embeddings_do(fitted):
    queries, gallery = rows(5, 3), rows(4, 4)
    expected = naive_csls(queries, gallery, rows(12, 0), rows(17, 1), 3)
    scores = fitted.score(queries, gallery, "text", "image")
    torch.testing.assert_close(scores, expected, atol=1e-3, rtol=0)


def test_a_score_depends_on_its_pair_alone(fitted):
    queries, gallery = rows(5, 3), rows(4, 4)
    scores = fitted.score(queries, gallery, "text", "image")
    for i in range(5):
        for j in range(4):
            one = fitted.score(queries[i : i + 1], gallery[j : j + 1], "text", "image")
            torch.testing.assert_close(one[0, 0], scores[i, j])


def test_rows_in_pieces_give_the_same(fitted, monkeypatch):
    queries, gallery = rows(5, 3), rows(7, 4)
    whole = fitted.score(queries, gallery, "text", "image")
    monkeypatch.setattr(csls, "_ROWS", 2)
    torch.testing.assert_close(fitted.score(queries, gallery, "text", "image"), whole)
    prepared = fitted.prepare(gallery, "text", "image")
    pieces = torch.cat([prepared(queries[:2]), prepared(queries[2:])])
    torch.testing.assert_close(pieces, whole)


def test_nothing_to_score_gives_no_scores(fitted):
    none = torch.zeros(0, 6)
    assert fitted.score(none, rows(4, 0), "text", "image").shape == (0, 4)
    assert fitted.score(rows(4, 0), none, "text", "image").shape == (4, 0)


def test_inputs_are_left_as_they_were(fitted):
    queries, gallery = rows(5, 3), rows(4, 4)
    before = queries.clone(), gallery.clone()
    fitted.score(queries, gallery, "text", "image")
    assert torch.equal(queries, before[0]) and torch.equal(gallery, before[1])


def test_csls_takes_the_advantage_from_a_hub():
    """A gallery item near to all queries wins by cosine; by CSLS each query finds its own."""
    queries = normalize(torch.eye(6) + 0.6, dim=1)
    hub = normalize(torch.ones(1, 6), dim=1)
    gallery = torch.cat([normalize(torch.eye(6) + 0.05, dim=1), hub])
    assert (CosineScorer().score(queries, gallery, "q", "g").argmax(dim=1) == 6).all()
    scorer = CSLSScorer(neighbours=6)
    scorer.fit({"q": queries, "g": gallery})
    assert torch.equal(scorer.score(queries, gallery, "q", "g").argmax(dim=1), torch.arange(6))


def test_the_state_makes_an_equal_scorer(fitted):
    other = CSLSScorer(**fitted.options)
    other.tensors = fitted.tensors
    queries, gallery = rows(5, 3), rows(4, 4)
    expected = fitted.score(queries, gallery, "text", "image")
    assert torch.equal(other.score(queries, gallery, "text", "image"), expected)
    assert {t.dtype for t in fitted.tensors.values()} == {torch.float16}


@pytest.mark.parametrize(
    "wrong",
    [
        {"bank.text": torch.zeros(3, 6)},
        {"text": torch.zeros(3, 6).half()},
        {"bank.text": torch.zeros(6).half()},
        {"bank.text": torch.zeros(0, 6).half()},
    ],
)
def test_a_state_that_holds_no_banks_is_refused(wrong):
    with pytest.raises(ValueError, match="text"):
        CSLSScorer().tensors = wrong


def test_a_large_training_set_is_sampled_evenly_and_always_alike():
    sample = even_sample(10_003, 500)
    assert torch.equal(sample, even_sample(10_003, 500))
    assert (sample.diff() > 0).all() and sample[0] >= 0 and sample[-1] < 10_003
    for start in range(0, 10_000, 1000):  # each tenth of the data has its tenth of the bank
        assert 49 <= ((sample >= start) & (sample < start + 1000)).sum() <= 51
    assert torch.equal(even_sample(5, 5), torch.arange(5))
    assert torch.equal(even_sample(6, 5).unique(), even_sample(6, 5))

    scorer = CSLSScorer(bank_size=8)
    train = rows(100, 0)
    scorer.fit({"image": train, "text": train[:5]})
    expected = train[even_sample(100, 8)].half()
    assert torch.equal(scorer.tensors["bank.image"], expected)
    assert len(scorer.tensors["bank.text"]) == 5


def test_what_cannot_be_is_refused(fitted):
    for options in ({"neighbours": 0}, {"bank_size": 0}):
        with pytest.raises(ConfigError, match="1 or more"):
            CSLSScorer(**options)
    with pytest.raises(ConfigError, match="no training embeddings of audio"):
        CSLSScorer().fit({"text": rows(3, 0), "audio": torch.zeros(0, 6)})
    with pytest.raises(ConfigError, match="not fitted"):
        CSLSScorer().score(rows(1, 0), rows(1, 0), "text", "image")
    with pytest.raises(ConfigError, match="image, text, audio"):
        fitted.score(rows(1, 0), rows(1, 0), "text", "video")


def test_options_are_those_of_the_signature():
    names = list(inspect.signature(CSLSScorer).parameters)
    assert list(CSLSScorer().options) == names == ["neighbours", "bank_size"]


@pytest.mark.parametrize("query", ["image", "text", "audio"])
@pytest.mark.parametrize("target", ["image", "text", "audio"])
@pytest.mark.parametrize("kind", [CosineScorer, CSLSScorer])
def test_lifted_vectors_find_the_ten_that_the_score_ranks_first(kind, query, target):
    """One gallery serves queries of every modality."""
    scorer, against = kind(), ["text", "audio", "image"]
    scorer.fit({"image": rows(120, 0), "text": rows(90, 1), "audio": rows(7, 2)})
    queries, gallery = rows(60, 3), rows(200, 4)
    asked = scorer.lift(queries, query, against, gallery=False)
    stored = scorer.lift(gallery, target, against, gallery=True)
    assert asked.dtype == stored.dtype == torch.float32
    expected = scorer.score(queries, gallery, query, target).topk(10, dim=1).indices
    assert torch.equal((asked @ stored.T).topk(10, dim=1).indices, expected)


def test_a_lifted_csls_is_half_the_score_and_what_the_query_adds(fitted):
    queries, gallery, against = rows(5, 3), rows(4, 4), ["audio", "text"]
    asked = fitted.lift(queries, "text", against, gallery=False)
    stored = fitted.lift(gallery, "image", against, gallery=True)
    assert asked.shape == (5, 8) and stored.shape == (4, 8)
    nearest = fitted.tensors["bank.image"].float()
    added = (queries @ nearest.T).sort(dim=1, descending=True).values[:, :3].mean(dim=1)
    got = 2 * (asked.double() @ stored.double().T) - added[:, None]
    banks = {name.removeprefix("bank."): bank for name, bank in fitted.tensors.items()}
    expected = naive_csls(queries, gallery, banks["image"], banks["text"], 3)
    torch.testing.assert_close(got, expected.double(), atol=1e-6, rtol=0)


def test_nothing_lifts_to_nothing(fitted):
    none = torch.zeros(0, 6)
    assert fitted.lift(none, "image", ["text"], gallery=True).shape == (0, 7)
    assert CosineScorer().lift(none, "image", ["text"], gallery=True).shape == (0, 6)


def test_a_query_that_the_index_does_not_serve_is_refused(fitted):
    with pytest.raises(ConfigError, match="no column for queries of audio"):
        fitted.lift(rows(1, 0), "audio", ["text"], gallery=False)
    with pytest.raises(ConfigError, match="no bank of video"):
        fitted.lift(rows(1, 0), "image", ["video"], gallery=True)


def test_a_scorer_that_is_no_inner_product_says_what_to_do():
    class Squared(Scorer):
        def score(self, queries, gallery, query, target):
            return (queries @ gallery.T) ** 2

    with pytest.raises(ConfigError, match=r"Squared can't be served(.|\n)*scorer=csls"):
        Squared().lift(rows(1, 0), "text", ["text"], gallery=False)
