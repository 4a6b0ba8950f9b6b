import pytest
import torch
from torch.nn.functional import normalize

from fusemix_core.evaluation.examples import examples


def split():
    images = normalize(torch.randn(60, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    texts = images.repeat_interleave(2, 0)
    texts[:60] = texts[:60].flip(0)  # the captions of the first thirty images are swapped about
    links = torch.stack([torch.arange(60).repeat_interleave(2), torch.arange(120)], dim=1)
    return {"image": images, "text": texts}, links


def test_right_and_wrong_examples_agree_with_the_scores():
    embeddings, links = split()
    shown = examples(embeddings, links, "image", "text", right=3, wrong=2, top=4)
    assert [e.rank == 1 for e in shown] == [True, True, True, False, False]
    for e in shown:
        scores = embeddings["text"] @ embeddings["image"][e.item]
        assert e.partners == (2 * e.item, 2 * e.item + 1)
        best = sorted(scores.tolist(), reverse=True)[:4]
        assert [h.score for h in e.hits] == pytest.approx(best)
        assert [h.partner for h in e.hits] == [h.item in e.partners for h in e.hits]
        better = (scores > max(scores[p] for p in e.partners)).sum().item()
        assert e.rank >= better + 1


def test_ties_show_the_negative_first_as_they_are_counted():
    embeddings = {"image": torch.ones(5, 1), "text": torch.ones(5, 1)}
    links = torch.arange(5)[:, None].repeat(1, 2)
    shown = examples(embeddings, links, "text", "image", right=4, wrong=4, top=5)
    assert len(shown) == 4
    for e in shown:
        assert e.rank == 5
        assert [h.partner for h in e.hits] == [False] * 4 + [True]


def test_draws_repeat_and_a_direction_without_pairs_is_empty():
    embeddings, links = split()
    assert examples(embeddings, links, "text", "image", seed=1) == examples(
        embeddings, links, "text", "image", seed=1
    )
    assert examples(embeddings, links[:0], "text", "image") == []
