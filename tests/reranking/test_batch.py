"""Training a re-ranker against the other pairs of a batch."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from fusemix_core.interfaces import Padded, PairedLatents, Reranker, ResidentLatents
from fusemix_core.rerank_config import RerankSettings
from fusemix_core.rerankers.interaction import Interaction, Whitening
from fusemix_core.reranking.fitting import negatives_of
from fusemix_core.reranking.learning import RerankFit
from fusemix_core.reranking.split import Split

WIDTHS = {"image": 3, "text": 2}


class Sums(Reranker):
    """The product of the sums of both sides, pair by pair."""

    def forward(self, latents):
        first, second = (x.filled().sum(dim=(1, 2)) for x in latents.values())
        return first * second


def split(links):
    draw = torch.Generator().manual_seed(0)
    tables = {m: ResidentLatents(torch.randn(5, 2, d, generator=draw)) for m, d in WIDTHS.items()}
    embeddings = {m: torch.zeros(5, 1) for m in WIDTHS}
    return Split(PairedLatents(tables, torch.tensor(links)), embeddings, lambda q, g, a, b: q @ g.T)


def loss(network, train, rows):
    """The loss of a batch of training rows, of `s` sources each."""
    fit = RerankFit(network, train.tokens, train.partners, [], 0, train.tokens, [])
    rows = torch.tensor(rows)
    own = {
        m: Padded(torch.stack([table.rows(ids).mean(dim=0) for ids in train.tokens.links[rows, k]]),
                  torch.ones(len(rows), 2, dtype=torch.bool))
        for k, (m, table) in enumerate(train.tokens.tables.items())
    }  # fmt: skip
    return fit._against_batch(own, rows), own


def test_the_loss_is_the_cross_entropy_both_ways():
    found, own = loss(Sums(WIDTHS), split([[i, i] for i in range(5)]), [[0], [2], [4]])
    a, b = (x.values.sum(dim=(1, 2)) for x in own.values())
    table = a[:, None] * b
    wanted = (cross_entropy(table, torch.arange(3)) + cross_entropy(table.T, torch.arange(3))) / 2
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("rows", "partners"),
    [
        ([[0], [1], [2]], [(0, 1), (1, 0)]),  # two texts of one image
        ([[0, 2], [1, 3]], [(0, 1), (1, 0)]),  # the same among the sources of mixed rows
        ([[0, 2], [3, 3]], []),
    ],
)
def test_partners_are_not_negatives(rows, partners):
    train = split([[0, 0], [0, 1], [2, 2], [3, 3]])
    found, own = loss(Sums(WIDTHS), train, rows)
    a, b = (x.values.sum(dim=(1, 2)) for x in own.values())
    table = a[:, None] * b
    for i, j in partners:
        table[i, j] = -torch.inf
    wanted = torch.arange(len(rows))
    expected = (cross_entropy(table, wanted) + cross_entropy(table.T, wanted)) / 2
    torch.testing.assert_close(found, expected)


def test_a_network_without_a_table_of_its_own_gets_random_negatives():
    auto = RerankSettings()
    assert negatives_of(auto, Interaction(WIDTHS)) == "batch"
    assert negatives_of(auto, Sums(WIDTHS)) == "random"
    assert negatives_of(replace(auto, negatives="hard"), Interaction(WIDTHS)) == "hard"


def test_whitened_tokens_are_uncorrelated_whatever_their_scale():
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randn(4_000, 6, generator=draw) @ torch.randn(6, 6, generator=draw)
    tokens = tokens * torch.tensor([1e3, 1, 1, 1e-3, 1, 0.0]) + 5
    whitening = Whitening(6, 3)
    whitening.learn(tokens)
    found = whitening(tokens)
    torch.testing.assert_close(found.T @ found / len(found), torch.eye(3), atol=1e-2, rtol=0)
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(3), atol=1e-2, rtol=0)
