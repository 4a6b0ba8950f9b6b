"""Short lists, negatives, mixing and measuring, by hand-made numbers."""

import pytest
import torch
from torch.nn.functional import normalize

from fusemix_core.config import Part
from fusemix_core.evaluation.retrieval import retrieval
from fusemix_core.interfaces import PairedLatents, Reranker, ResidentLatents
from fusemix_core.reranking.measuring import measure
from fusemix_core.reranking.mixing import choose, reciprocal_ranks
from fusemix_core.reranking.negatives import hard_negatives, random_negatives
from fusemix_core.reranking.split import Shortlist, Split, shortlist
from fusemix_core.runs.reranking import default_view, is_layered, layers_of, networks_of
from fusemix_core.specs import EncoderSpec


def cosine(queries, gallery, query, target):
    return queries @ gallery.T


def split(count=40, links=None, same=None, seed=0):
    draw = torch.Generator().manual_seed(seed)
    ids = torch.arange(count)[:, None].repeat(1, 2) if links is None else torch.tensor(links)
    tables = {m: ResidentLatents(torch.randn(count, 3, 4, generator=draw)) for m in "ab"}
    common = torch.randn(count, 6, generator=draw)
    noisy = {m: common + torch.randn(count, 6, generator=draw) for m in "ab"}
    rows = {m: normalize(x, dim=1) for m, x in noisy.items()}
    return Split(PairedLatents(tables, ids), rows, cosine, same or {})


class Oracle(Reranker):
    """Likes an item for the sum of its tokens."""

    def forward(self, latents):
        return latents["b"].filled().sum(dim=(1, 2))


def test_a_short_list_has_the_best_candidates_in_order():
    pairs = split()
    found = shortlist(pairs, "a", "b", 7)
    scores = pairs.embeddings["a"] @ pairs.embeddings["b"].T
    best = scores.topk(7)
    assert torch.equal(found.candidates, best.indices) and found.name == "a->b"
    torch.testing.assert_close(found.scores, best.values)
    assert torch.equal(found.positive, found.candidates == found.queries[:, None])


def test_hard_negatives_are_the_nearest_that_say_something_else():
    same = {"b": torch.tensor([0, 0, *range(2, 40)])}  # items 0 and 1 say the same
    pairs = split(links=[[i, i] for i in range(40)] + [[0, 5]], same=same)
    found = hard_negatives(pairs, "a", "b", 10)
    scores = pairs.embeddings["a"] @ pairs.embeddings["b"].T
    for row, (a, _) in enumerate(pairs.tokens.links.tolist()):
        own = {0: {0, 1, 5}, 1: {0, 1}}.get(a, {a})
        ranked = [i for i in scores[a].argsort(descending=True).tolist() if i not in own]
        assert found.pool[row].tolist() == ranked[:10] and found.allowed[row].all()
    items, fine = found.draw(torch.tensor([3, 9]), 4)
    assert fine.all() and all(len(set(row.tolist())) == 4 for row in items)


def test_of_too_few_items_some_negatives_are_marked_as_none():
    found = hard_negatives(split(count=3), "a", "b", 3)
    items, fine = found.draw(torch.arange(3), 3)
    assert fine.sum(dim=1).tolist() == [2, 2, 2]
    assert (items[fine].view(3, 2) != torch.arange(3)[:, None]).all()


@pytest.mark.parametrize(("query", "target"), ["ab", "ba"])
def test_random_negatives_of_few_items_are_different_ones(query, target):
    pairs = split(links=[[i, i] for i in range(10)] + [[0, 5]])
    found = random_negatives(pairs, query, target, 32, torch.Generator().manual_seed(0))
    items, fine = found.draw(torch.arange(11), 8)
    assert fine.all() and all(len(set(row.tolist())) == 8 for row in items)
    partners = {(a, b) for a, b in pairs.tokens.links.tolist()}
    for row, own in zip(items.tolist(), pairs.tokens.links.tolist(), strict=True):
        asked = own["ab".index(query)]
        assert not {(asked, i) if query == "a" else (i, asked) for i in row} & partners


def test_a_tie_counts_against_the_positive():
    scores = torch.tensor([[1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    positive = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 0]]).bool()
    assert reciprocal_ranks(scores, positive).tolist() == [0.5, 0.5, 0.0]


def test_a_network_without_a_gain_gets_no_weight_and_a_perfect_one_some():
    draw = torch.Generator().manual_seed(0)
    scores = torch.rand(50, 8, generator=draw).sort(dim=1, descending=True).values
    positive = torch.zeros(50, 8, dtype=torch.bool)
    positive[torch.arange(50), torch.randint(8, (50,), generator=draw)] = True
    one = Shortlist("a", "b", torch.arange(50), torch.zeros(50, 8).long(), scores, positive)
    assert choose([one], [-positive.float()]).weights == {"a->b": 0.0}
    mix = choose([one], [100 * positive.float()])
    assert mix.alpha > 0 and mix.score == 100 and mix.tried[0.0] < 100


def test_measured_ranks_are_those_of_the_mixed_scores():
    pairs, k = split(), 6
    network = Oracle({"a": 4, "b": 4}).eval()
    weights = {"a->b": 0.3, "b->a": 0.0}
    found = measure(network, weights, pairs, k)
    before = retrieval(pairs.embeddings, pairs.tokens.links)["directions"]
    assert found["before"]["directions"]["a->b"]["r1"] == before["a->b"]["r1"]
    same = [found[when]["directions"]["b->a"] for when in ("before", "after")]
    assert same[0]["mrr"] == same[1]["mrr"] and same[0]["r5"] == same[1]["r5"]
    scores = pairs.embeddings["a"] @ pairs.embeddings["b"].T
    liked = pairs.tokens.tables["b"].latents.sum(dim=(1, 2))
    hits = {1: 0, 5: 0, 10: 0}
    for i, row in enumerate(scores):
        order = row.argsort(descending=True)
        first = order[:k]
        anew = first[(row[first] + 0.3 * liked[first]).argsort(descending=True)]
        rank = torch.cat([anew, order[k:]]).tolist().index(i)
        for top in hits:
            hits[top] += rank < top
    row = found["after"]["directions"]["a->b"]
    assert {top: row[f"r{top}"] for top in hits} == {t: 100 * n / 40 for t, n in hits.items()}


@pytest.mark.parametrize(
    ("views", "wanted"),
    [
        (("pooled", "grid"), "grid"),
        (("pooled", "layers", "tokens", "tokens-layers"), "tokens-layers"),
        (("pooled", "layers-middle-last"), "layers-middle-last"),
        (("pooled",), "pooled"),
    ],
)
def test_a_view_with_tokens_is_taken_of_several_layers_if_there_is_one(views, wanted):
    spec = EncoderSpec(name="x", modality="text", target="x:X", dim=12, views=views)
    assert default_view(spec) == wanted
    assert layers_of(spec, "tokens-layers", 72) == 6 and layers_of(spec, "grid", 72) == 1
    assert is_layered("tokens-layers") and not is_layered("layers") and not is_layered("tokens")


def test_options_of_auto_choose_the_networks_that_have_them():
    found = networks_of(Part("auto", {"width": 8}))
    assert found["interaction"].options == {"width": 8}
    assert set(networks_of(Part("auto", {"dropout": 0.2, "width": 8}))) == set(found)
    assert list(networks_of(Part("interaction"))) == ["interaction"]
